"""Draws lesions and examinations with the statistics and dependencies of `tables`."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from endoclip_jax.records.attributes import BIT_NAMES, NUM_BITS, aspect_slice
from endoclip_jax.synthetic import tables

_BIT = {name: i for i, name in enumerate(BIT_NAMES)}

_FORM_BITS = {
    "Is": ("gross_form.protruded", "attachment.sessile"),
    "Isp": ("gross_form.protruded", "attachment.subpedunculated"),
    "Ip": ("gross_form.protruded", "attachment.pedunculated"),
    "IIa": ("gross_form.flat_elevated",),
    "IIb": ("gross_form.flat",),
    "IIc": ("gross_form.depressed",),
    "LST": ("lst_growth.lst", "gross_form.flat_elevated"),
    "mass": ("gross_form.mass",),
}
_LST_BITS = {
    "G_H": ("lst_growth.granular",),
    "G_NM": ("lst_growth.granular", "lst_growth.nodular_mixed", "gross_form.protruded"),
    "NG_FE": ("lst_growth.non_granular",),
    "NG_PD": ("lst_growth.non_granular", "lst_growth.pseudodepressed", "gross_form.depressed"),
}


@dataclass(frozen=True)
class Lesion:
    """One polyp as it is: all that can be seen of it, and what the pathologist will say."""

    bits: np.ndarray
    """uint8[40] in the order of `records.attributes.BIT_NAMES`."""
    vienna: int
    size_mm: float
    form: str
    """One of `tables.FORMS`."""
    lst_type: str | None
    """One of `tables.LST_TYPES` for an LST, else None."""
    location: str
    """A segment as the extraction schema names it."""


def _choose(rng: np.random.Generator, probabilities: np.ndarray) -> np.ndarray:
    """One category per row of `probabilities` [n, k] (rows need not sum to 1), int[n]."""
    edges = np.cumsum(probabilities, axis=1)
    draws = rng.random(len(edges)) * edges[:, -1]
    return np.minimum((draws[:, None] >= edges).sum(1), edges.shape[1] - 1)


def _rows(table: Mapping[int, tuple[float, ...]], vienna: np.ndarray) -> np.ndarray:
    """The table's row of each lesion's Vienna class, float64[n, k]."""
    return np.array([table[v] for v in tables.VIENNA])[np.searchsorted(tables.VIENNA, vienna)]


def _sizes_and_vienna(
    rng: np.random.Generator, n: int, vienna: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Size class and Vienna class drawn jointly, or the size class given the Vienna class."""
    if vienna is None:
        size = _choose(rng, np.tile(tables.P_SIZE, (n, 1)))
        drawn = _choose(rng, tables.P_VIENNA_GIVEN_SIZE[size])
        return size, np.array(tables.VIENNA)[drawn]
    joint = tables.P_SIZE[:, None] * tables.P_VIENNA_GIVEN_SIZE
    return _choose(rng, joint.T[np.searchsorted(tables.VIENNA, vienna)]), vienna


def _locations(
    rng: np.random.Generator, vienna: np.ndarray, is_lst: np.ndarray, serrated: np.ndarray
) -> np.ndarray:
    p = np.where(is_lst[:, None], tables.P_LOCATION_LST, tables.P_LOCATION)
    hyperplastic = (vienna == 1) & ~serrated
    p = np.where(
        hyperplastic[:, None] & tables.RECTOSIGMOID,
        p * tables.HYPERPLASTIC_RECTOSIGMOID_FACTOR,
        p,
    )
    p = np.where(serrated[:, None] & tables.RIGHT_COLON, p * tables.SERRATED_RIGHT_FACTOR, p)
    return _choose(rng, p)


def sample_lesions(
    rng: np.random.Generator, n: int, vienna: np.ndarray | None = None
) -> list[Lesion]:
    """`n` independent lesions; with `vienna` int[n] given, drawn conditionally on it."""
    size, vienna = _sizes_and_vienna(rng, n, vienna)
    form_table = np.array(
        [[tables.form_probabilities(s, v) for v in tables.VIENNA] for s in range(4)]
    )
    form = _choose(rng, form_table[size, np.searchsorted(tables.VIENNA, vienna)])
    lst_type = _choose(rng, _rows(tables.P_LST, vienna))
    is_lst = form == tables.FORMS.index("LST")

    bits = np.zeros((n, NUM_BITS), np.uint8)
    rows = np.arange(n)
    bits[rows, aspect_slice("size_class").start + size] = 1
    for i, name in enumerate(tables.FORMS):
        for bit in _FORM_BITS[name]:
            bits[form == i, _BIT[bit]] = 1
    elevated = rng.random(n) < tables.P_DEPRESSED_WITH_ELEVATION
    bits[(form == tables.FORMS.index("IIc")) & elevated, _BIT["gross_form.flat_elevated"]] = 1
    for i, name in enumerate(tables.LST_TYPES):
        for bit in _LST_BITS[name]:
            bits[is_lst & (lst_type == i), _BIT[bit]] = 1

    surface = rng.random((n, 5)) < _rows(tables.P_SURFACE, vienna)
    unnamed = ~surface.any(1)
    fallback = _choose(rng, _rows(tables.P_SURFACE, vienna))
    surface[rows[unnamed], fallback[unnamed]] = True
    bits[:, aspect_slice("surface")] = surface

    bits[rows, aspect_slice("colour").start + _choose(rng, _rows(tables.P_COLOUR, vienna))] = 1

    margin = rng.random((n, 3)) < _rows(tables.P_MARGIN, vienna)
    contradictory = margin[:, 0] & margin[:, 1]
    dropped = rng.integers(2, size=n)
    margin[rows[contradictory], dropped[contradictory]] = False
    bits[:, aspect_slice("margin")] = margin

    micro = _choose(rng, _rows(tables.P_MICROSTRUCTURE, vienna))
    bits[rows, aspect_slice("microstructure").start + micro] = 1
    bits[:, aspect_slice("secondary_features")] = rng.random((n, 7)) < _rows(
        tables.P_SECONDARY, vienna
    )

    serrated = (
        (vienna == 1)
        & (bits[:, _BIT["gross_form.flat_elevated"]] == 1)
        & (bits[:, _BIT["secondary_features.mucus_cap"]] == 1)
    )
    location = _locations(rng, vienna, is_lst, serrated)
    size_mm = np.zeros(n)
    for i, (values, p) in enumerate(tables.SIZE_MM):
        inside = size == i
        size_mm[inside] = rng.choice(values, int(inside.sum()), p=p)

    return [
        Lesion(
            bits=bits[i],
            vienna=int(vienna[i]),
            size_mm=float(size_mm[i]),
            form=tables.FORMS[form[i]],
            lst_type=tables.LST_TYPES[lst_type[i]] if is_lst[i] else None,
            location=tables.LOCATIONS[location[i]],
        )
        for i in range(n)
    ]


def sample_lesion(rng: np.random.Generator, vienna: int | None = None) -> Lesion:
    """One lesion, of the given Vienna class if there is one."""
    return sample_lesions(rng, 1, None if vienna is None else np.array([vienna]))[0]


def sample_mentions(rng: np.random.Generator, n: int) -> dict[str, np.ndarray]:
    """Which aspects the report speaks of, bool[n] each; form and attachment go together."""
    said = {aspect: rng.random(n) < p for aspect, p in tables.P_MENTION.items()}
    said["attachment"] = said["gross_form"]
    return said


# --- examinations --------------------------------------------------------------------------------


@dataclass(frozen=True)
class FramePlan:
    """What one frame of an examination shows."""

    polyp: int
    """Index of the lesion it shows, -1 for none."""
    imaging: str
    """`wli` or `nbi`."""
    indicative: bool
    """Whether it is the clinician's best image of that lesion."""


def sample_polyp_count(rng: np.random.Generator) -> int:
    return 1 + int(rng.choice(len(tables.P_POLYPS), p=tables.P_POLYPS))


@functools.cache
def _share_factor(frames: int) -> float:
    """Factor on the Beta share that keeps the mean polyp-frame share at `POLYP_FRAME_SHARE`.

    A short record must still show each of its polyps at least once; this floor alone would raise
    the share, so the draws above it are lowered. Found by bisection on a fixed sample.
    """
    rng = np.random.default_rng(0)
    polyps = 1 + rng.choice(len(tables.P_POLYPS), 20_000, p=tables.P_POLYPS)
    share = rng.beta(*tables.POLYP_FRAME_BETA, 20_000)
    low, high = 0.0, 1.5
    for _ in range(40):
        middle = (low + high) / 2
        mean = np.clip(middle * share * frames, polyps, frames).mean() / frames
        low, high = (middle, high) if mean < tables.POLYP_FRAME_SHARE else (low, middle)
    return high


def sample_frame_plans(
    rng: np.random.Generator, lesions: list[Lesion], frames: int
) -> list[FramePlan]:
    """Which of `frames` (at least one a lesion) shows which lesion, in shuffled order."""
    polyp_of_frame = [-1] * frames
    if lesions:
        wanted = _share_factor(frames) * rng.beta(*tables.POLYP_FRAME_BETA) * frames
        wanted = np.clip(wanted, len(lesions), frames)
        total = int(wanted + rng.random())
        weights = np.array(
            [tables.LARGE_POLYP_FRAME_FACTOR if x.size_mm >= 10 else 1.0 for x in lesions]
        )
        spare = min(total, frames) - len(lesions)
        extra = rng.choice(len(lesions), spare, p=weights / weights.sum())
        shown = [*range(len(lesions)), *(int(i) for i in extra)]
        polyp_of_frame[: len(shown)] = shown
    order = rng.permutation(frames)
    polyp_of_frame = [polyp_of_frame[i] for i in order]

    chance = [tables.NBI_SHARE_OTHER if p < 0 else tables.NBI_SHARE_POLYP for p in polyp_of_frame]
    nbi = rng.random(frames) < chance
    best = {}
    for i in range(len(lesions)):
        own = [k for k in range(frames) if polyp_of_frame[k] == i]
        best[i] = next((k for k in own if nbi[k]), own[0])
    return [
        FramePlan(polyp=p, imaging="nbi" if nbi[k] else "wli", indicative=best.get(p) == k)
        for k, p in enumerate(polyp_of_frame)
    ]
