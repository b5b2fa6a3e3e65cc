"""How well an extractor reads reports, against a gold extraction (domain notes, section 3).

Items are matched one to one by the Hungarian assignment on location overlap, size and evidence.
Item accuracy is TP / (TP + FP + FN) over all reports: ``relaxed`` wants location, size within
1 mm and gross form with attachment right, ``strict`` wants location, size and all nine aspects.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from endoclip_jax.records.attributes import (
    ASPECTS,
    NUM_BITS,
    aspect_slice,
    attribute_bits,
    case_type,
)
from endoclip_jax.records.extraction.compare import match_items, same_place, size_gap
from endoclip_jax.records.extraction.text import squeezed

SIZE_TOLERANCE_MM = 1.0
_FORM = np.r_[aspect_slice("gross_form"), aspect_slice("attachment")]


def extraction_measures(
    predicted: Sequence[Mapping | None], gold: Sequence[Mapping], reports: Sequence[str]
) -> dict[str, Any]:
    """Measures over reports; all three sequences are aligned.

    ``predicted`` and ``gold`` hold objects of ``records/data/schema.json``; None is a report that
    could not be parsed: all its gold items count as missed. Rates without a case are None.

    Returns parse_rate, presence (sensitivity, specificity), case_type_accuracy, item accuracies
    (strict, relaxed), per-aspect and micro precision / recall / F1 on the bits of matched and
    unmatched items, unit_errors (share of sized pairs off by a factor of ten) and grounding.
    """
    tally: Counter[str] = Counter()
    bits = np.zeros((3, NUM_BITS), np.int64)  # rows: true positive, false positive, false negative
    for guess, truth, report in zip(predicted, gold, reports, strict=True):
        tally["reports"] += 1
        tally["parsed"] += guess is not None
        items = list(guess["polyps"]) if guess is not None else []
        wanted = list(truth["polyps"])
        _tally_case(tally, guess, items, truth, wanted)
        _tally_grounding(tally, items, report)
        pairs = match_items(items, wanted)
        _tally_items(tally, pairs)
        bits += sum((_bit_outcomes(*pair) for pair in pairs), np.zeros_like(bits))
    return _summary(tally, bits)


def is_relaxed_match(predicted: Mapping, gold: Mapping) -> bool:
    """Same locations, size within 1 mm, same gross form and attachment."""
    same_form = bool((attribute_bits(predicted)[_FORM] == attribute_bits(gold)[_FORM]).all())
    near = size_gap(predicted, gold) <= SIZE_TOLERANCE_MM
    return same_place(predicted, gold) and near and same_form


def is_strict_match(predicted: Mapping, gold: Mapping) -> bool:
    """Same locations, same size in mm, all nine aspects equal."""
    same_bits = bool((attribute_bits(predicted) == attribute_bits(gold)).all())
    return same_place(predicted, gold) and size_gap(predicted, gold) == 0 and same_bits


def is_grounded(span: str, report: str) -> bool:
    """Whether a span is in the report, after folding widths and blanks (NFKC)."""
    return squeezed(span) in squeezed(report)


def _tally_case(
    tally: Counter, guess: Mapping | None, items: list, truth: Mapping, wanted: list
) -> None:
    said = bool(guess is not None and guess["polyp_present"])
    if truth["polyp_present"]:
        tally["positive"] += 1
        tally["found"] += said
    else:
        tally["negative"] += 1
        tally["cleared"] += guess is not None and not said
    tally["case_type"] += guess is not None and case_type(items) == case_type(wanted)


def _tally_grounding(tally: Counter, items: Iterable[Mapping], report: str) -> None:
    for item in items:
        for span in item.get("evidence", ()):
            tally["spans"] += 1
            tally["grounded"] += is_grounded(span, report)


def _tally_items(tally: Counter, pairs: Iterable[tuple[Mapping | None, Mapping | None]]) -> None:
    for guess, truth in pairs:
        tally["missed"] += guess is None
        tally["invented"] += truth is None
        if guess is None or truth is None:
            continue
        tally["matched"] += 1
        tally["strict"] += is_strict_match(guess, truth)
        tally["relaxed"] += is_relaxed_match(guess, truth)
        sizes = guess["size_mm_max"], truth["size_mm_max"]
        if None not in sizes:
            tally["sized"] += 1
            tally["unit_errors"] += any(abs(sizes[0] / sizes[1] - r) < 0.05 * r for r in (10, 0.1))


def _summary(tally: Counter, bits: np.ndarray) -> dict[str, Any]:
    # A matched pair that disagrees is a false positive and a false negative at once.
    def item_accuracy(right: int) -> float | None:
        wrong = 2 * (tally["matched"] - right) + tally["missed"] + tally["invented"]
        return _rate(right, right + wrong)

    return {
        "reports": tally["reports"],
        "parse_rate": _rate(tally["parsed"], tally["reports"]),
        "presence_sensitivity": _rate(tally["found"], tally["positive"]),
        "presence_specificity": _rate(tally["cleared"], tally["negative"]),
        "case_type_accuracy": _rate(tally["case_type"], tally["reports"]),
        "items_strict": item_accuracy(tally["strict"]),
        "items_relaxed": item_accuracy(tally["relaxed"]),
        "micro": _precision_recall(*bits.sum(1).tolist()),
        "aspects": {
            aspect: _precision_recall(*bits[:, aspect_slice(aspect)].sum(1).tolist())
            for aspect, _ in ASPECTS
        },
        "unit_errors": _rate(tally["unit_errors"], tally["sized"]),
        "grounding": _rate(tally["grounded"], tally["spans"]),
    }


def _bit_outcomes(guess: Mapping | None, truth: Mapping | None) -> np.ndarray:
    empty = np.zeros(NUM_BITS, bool)
    said = empty if guess is None else attribute_bits(guess).astype(bool)
    true = empty if truth is None else attribute_bits(truth).astype(bool)
    return np.stack([said & true, said & ~true, ~said & true]).astype(np.int64)


def _precision_recall(true: int, false: int, missed: int) -> dict[str, float | None]:
    return {
        "precision": _rate(true, true + false),
        "recall": _rate(true, true + missed),
        "f1": _rate(2 * true, 2 * true + false + missed),
    }


def _rate(part: int, whole: int) -> float | None:
    return part / whole if whole else None
