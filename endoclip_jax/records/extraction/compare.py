"""Two readings of one report side by side: which lesions are the same, and where they differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from endoclip_jax.records.attributes import ASPECTS, attribute_bits, bit_values
from endoclip_jax.records.extraction.text import squeezed

_COMPARED = (
    "count",
    "count_is_approximate",
    "size_mm_min",
    "size_mm_max",
    "distance_from_anal_verge_cm",
)


def match_items(
    predicted: Sequence[Mapping], gold: Sequence[Mapping]
) -> list[tuple[Mapping | None, Mapping | None]]:
    """Pairs (predicted, gold) of the assignment with the highest agreement; None is unmatched."""
    from scipy.optimize import linear_sum_assignment

    agreement = np.array([[_agreement(p, g) for g in gold] for p in predicted])
    if agreement.size == 0:
        return [(p, None) for p in predicted] + [(None, g) for g in gold]
    rows, columns = linear_sum_assignment(-agreement)
    pairs: list[tuple[Mapping | None, Mapping | None]] = [
        (predicted[r], gold[c]) for r, c in zip(rows, columns, strict=True)
    ]
    pairs += [(p, None) for i, p in enumerate(predicted) if i not in rows]
    return pairs + [(None, g) for i, g in enumerate(gold) if i not in columns]


def differences(first: Mapping, second: Mapping) -> list[str]:
    """Where two readings of a report differ in what training uses of them; empty if nowhere.

    Compared are the lesions: how many, where, their size, count, distance and bits.
    """
    found = []
    for one, other in match_items(first["polyps"], second["polyps"]):
        if one is None or other is None:
            only = "second" if one is None else "first"
            polyp = one or other or {}
            found.append(f"only the {only} has: {polyp['description']}")
            continue
        where = f"polyp {one['polyp_index']}"
        values = {key: (one[key], other[key]) for key in _COMPARED}
        values["location"] = (sorted(one["location"]), sorted(other["location"]))
        stated = bit_values(attribute_bits(one)), bit_values(attribute_bits(other))
        values |= {aspect: (stated[0][aspect], stated[1][aspect]) for aspect, _ in ASPECTS}
        found += [f"{where} {key}: {a} or {b}" for key, (a, b) in values.items() if a != b]
    return found


def same_place(predicted: Mapping, gold: Mapping) -> bool:
    """Whether two lesions have the same locations."""
    return set(predicted["location"]) == set(gold["location"])


def size_gap(predicted: Mapping, gold: Mapping) -> float:
    """Largest difference of the two ends in mm; infinite if only one of the items has it."""
    gaps = [0.0]
    for end in ("size_mm_min", "size_mm_max"):
        a, b = predicted[end], gold[end]
        if (a is None) != (b is None):
            return float("inf")
        if a is not None:
            gaps.append(abs(a - b))
    return float(max(gaps))


def _agreement(predicted: Mapping, gold: Mapping) -> float:
    """Between 0 and 3: Jaccard index of the locations, closeness in size, shared evidence."""
    places, wanted = set(predicted["location"]), set(gold["location"])
    overlap = len(places & wanted) / len(places | wanted) if places | wanted else 1.0
    gap = size_gap(predicted, gold)
    closeness = 0.0 if np.isinf(gap) else 1.0 / (1.0 + gap)
    return overlap + closeness + _shared_evidence(predicted, gold)


def _shared_evidence(predicted: Mapping, gold: Mapping) -> float:
    """Dice overlap of the character pairs of both items' evidence."""
    a, b = (
        Counter(
            pair
            for span in item.get("evidence", ())
            for pair in zip(squeezed(span), squeezed(span)[1:], strict=False)
        )
        for item in (predicted, gold)
    )
    total = sum(a.values()) + sum(b.values())
    return 2 * sum((a & b).values()) / total if total else 0.0
