"""The nine morphological aspects of a colorectal lesion as a 40-bit multi-hot vector.

What a report says about one lesion (an item of ``data/schema.json``) becomes bits here and only
here, whoever did the reading: rules or a language model. Codes (Paris, Yamada, LST, NICE, JNET,
Kudo) beat numbers, numbers beat words; what is not mentioned and what is negated are both 0
(Endo-CLIP, Section 2.2: multi-hot attribute vectors).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources

import numpy as np


def _load_aspects() -> tuple[tuple[str, tuple[str, ...]], ...]:
    text = resources.files("endoclip_jax.records").joinpath("data/vocab.json").read_text("utf-8")
    return tuple((name, tuple(values)) for name, values in json.loads(text)["aspects"])


ASPECTS: tuple[tuple[str, tuple[str, ...]], ...] = _load_aspects()
BIT_NAMES: tuple[str, ...] = tuple(
    f"{aspect}.{value}" for aspect, values in ASPECTS for value in values
)
NUM_BITS: int = len(BIT_NAMES)
_BIT = {name: position for position, name in enumerate(BIT_NAMES)}

SIZE_CLASSES: tuple[str, ...] = dict(ASPECTS)["size_class"]

PARIS_BITS: dict[str, tuple[str, ...]] = {
    "0-Ip": ("gross_form.protruded", "attachment.pedunculated"),
    "0-Isp": ("gross_form.protruded", "attachment.subpedunculated"),
    "0-Is": ("gross_form.protruded", "attachment.sessile"),
    "0-IIa": ("gross_form.flat_elevated",),
    "0-IIb": ("gross_form.flat",),
    "0-IIc": ("gross_form.depressed",),
    "0-III": ("gross_form.depressed", "secondary_features.ulcer_erosion"),
}
# Yamada is a gastric scheme that many Chinese centres use in the colon; I and II have no neck.
YAMADA_BITS: dict[str, tuple[str, ...]] = {
    "I": PARIS_BITS["0-Is"],
    "II": PARIS_BITS["0-Is"],
    "III": PARIS_BITS["0-Isp"],
    "IV": PARIS_BITS["0-Ip"],
}
ATTACHMENT_BITS: dict[str, tuple[str, ...]] = {
    "pedunculated": PARIS_BITS["0-Ip"],
    "subpedunculated": PARIS_BITS["0-Isp"],
    "sessile": PARIS_BITS["0-Is"],
}
LST_BITS: dict[str, tuple[str, ...]] = {
    "lst": ("lst_growth.lst", "gross_form.flat_elevated"),
    "granular": ("lst_growth.granular",),
    "non_granular": ("lst_growth.non_granular",),
    "nodular_mixed": (
        "lst_growth.granular",
        "lst_growth.nodular_mixed",
        "gross_form.protruded",
    ),
    "pseudodepressed": (
        "lst_growth.non_granular",
        "lst_growth.pseudodepressed",
        "gross_form.depressed",
    ),
}
_NON, _REGULAR, _IRREGULAR, _INVASIVE = (
    f"microstructure.{value}" for value in dict(ASPECTS)["microstructure"]
)
NICE_BITS = {"1": _NON, "2": _REGULAR, "3": _INVASIVE}
JNET_BITS = {"1": _NON, "2A": _REGULAR, "2B": _IRREGULAR, "3": _INVASIVE}
KUDO_BITS = {
    "I": _NON,
    "II": _NON,
    "IIIs": _REGULAR,
    "IIIL": _REGULAR,
    "IV": _REGULAR,
    "VI": _IRREGULAR,
    "VN": _INVASIVE,
}


def aspect_slice(name: str) -> slice:
    """Positions of one aspect's bits in the vector; ``KeyError`` for an unknown aspect."""
    start = 0
    for aspect, values in ASPECTS:
        if aspect == name:
            return slice(start, start + len(values))
        start += len(values)
    raise KeyError(name)


def size_class(millimetres: float | int) -> str:
    """ESGE class of a diameter: up to 5 mm, below 10 mm, below 20 mm, 20 mm and more."""
    if millimetres <= 5:
        return SIZE_CLASSES[0]
    if millimetres < 10:
        return SIZE_CLASSES[1]
    return SIZE_CLASSES[2] if millimetres < 20 else SIZE_CLASSES[3]


def attribute_bits(polyp: Mapping) -> np.ndarray:
    """Bits of one lesion or group: uint8[40] in the order of ``BIT_NAMES``.

    ``polyp`` is an item of ``data/schema.json``. Contradictory blocks (`contradictions`) stay
    empty. A code or value outside the vocabulary raises ``ValueError``.
    """
    names = _size_names(polyp) | _form_names(polyp) | _pattern_names(polyp)
    for aspect in ("surface", "colour", "margin", "secondary_features"):
        names |= _stated(polyp, aspect)
    bits = np.zeros(NUM_BITS, np.uint8)
    for name in names:
        if name not in _BIT:
            raise ValueError(f"unknown attribute {name!r}")
        bits[_BIT[name]] = 1
    for block in _contradictory(bits, polyp.get("count", 1)):
        bits[[_BIT[name] for name in block]] = 0
    return bits


def contradictions(polyp: Mapping) -> tuple[str, ...]:
    """Aspects whose stated values exclude each other on a single lesion; to be flagged.

    The same values on a group of lesions (``count`` above 1) are no contradiction.
    """
    names = _form_names(polyp) | _stated(polyp, "margin")
    bits = np.zeros(NUM_BITS, np.uint8)
    bits[[_BIT[name] for name in names]] = 1
    blocks = _contradictory(bits, polyp.get("count", 1))
    return tuple(dict.fromkeys(block[0].split(".")[0] for block in blocks))


def union_bits(vectors: Iterable[np.ndarray]) -> np.ndarray:
    """Union over a patient's items, uint8[40]; zeros when there is none (method notes, 5h)."""
    union = np.zeros(NUM_BITS, np.uint8)
    for vector in vectors:
        union |= np.asarray(vector, np.uint8)
    return union


def case_type(polyps: Sequence[Mapping]) -> str:
    """``negative`` (no item), ``single`` (one lesion in all) or ``multi``, by the sum of counts."""
    total = sum(polyp["count"] for polyp in polyps)
    return "negative" if total == 0 else "single" if total == 1 else "multi"


def bit_values(bits: np.ndarray) -> dict[str, list[str]]:
    """The set bits by aspect, in vocabulary order: the form of a schema item's ``attributes``."""
    return {
        aspect: [value for value in values if bits[_BIT[f"{aspect}.{value}"]]]
        for aspect, values in ASPECTS
    }


def _stated(polyp: Mapping, aspect: str) -> set[str]:
    return {f"{aspect}.{value}" for value in polyp.get("attributes", {}).get(aspect, ())}


def _size_names(polyp: Mapping) -> set[str]:
    stated = [polyp[key] for key in ("size_mm_min", "size_mm_max") if polyp.get(key) is not None]
    if not stated:
        return _stated(polyp, "size_class")
    low, high = stated[0], stated[-1]
    if polyp.get("count", 1) == 1:
        return {f"size_class.{size_class(high)}"}
    first, last = SIZE_CLASSES.index(size_class(low)), SIZE_CLASSES.index(size_class(high))
    return {f"size_class.{name}" for name in SIZE_CLASSES[first : last + 1]}


def _form_names(polyp: Mapping) -> set[str]:
    """Gross form, attachment, LST growth: codes replace words; 0-II, LST and mass have no base."""
    growth = {name.split(".")[1] for name in _stated(polyp, "lst_growth")}
    codes = [_lookup(PARIS_BITS, code, "Paris") for code in polyp.get("paris", ())]
    if not codes and polyp.get("yamada"):
        codes = [_lookup(YAMADA_BITS, polyp["yamada"], "Yamada")]
    if growth:
        codes += [_lookup(LST_BITS, value, "LST") for value in {"lst", *growth}]
    if codes:
        return {name for code in codes for name in code}
    forms = _stated(polyp, "gross_form")
    if "gross_form.mass" in forms:
        return forms - {"gross_form.protruded"}
    attachments = polyp.get("attributes", {}).get("attachment", ())
    return forms.union(*(_lookup(ATTACHMENT_BITS, word, "attachment") for word in attachments))


def _pattern_names(polyp: Mapping) -> set[str]:
    codes = {_lookup(KUDO_BITS, code, "Kudo") for code in polyp.get("kudo", ())}
    if polyp.get("nice"):
        codes.add(_lookup(NICE_BITS, polyp["nice"], "NICE"))
    if polyp.get("jnet"):
        codes.add(_lookup(JNET_BITS, polyp["jnet"], "JNET"))
    return codes or _stated(polyp, "microstructure")


def _lookup(table: Mapping, code: str, system: str):
    if code not in table:
        raise ValueError(f"unknown {system} value {code!r}; one of {', '.join(table)}")
    return table[code]


def _contradictory(bits: np.ndarray, count: int) -> list[tuple[str, ...]]:
    """Blocks of mutually exclusive values of which a single lesion has more than one."""
    if count > 1:
        return []
    exclusive = [
        BIT_NAMES[aspect_slice("attachment")],
        ("lst_growth.granular", "lst_growth.non_granular"),
        ("margin.clear", "margin.indistinct"),
    ]
    return [block for block in exclusive if sum(bits[_BIT[name]] for name in block) > 1]
