"""What a report says of the lesions, before it is put into words of either language.

A `Finding` is one lesion, or one group that the doctor does not take apart, with the facts that are
mentioned and the notation they are mentioned in. A `Passage` is a piece of text about one or more
findings: alone, "in A and B one each", "two in C". Truth for the extractor is read off here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from endoclip_jax.records.attributes import ASPECTS, aspect_slice, attribute_bits
from endoclip_jax.synthetic import tables
from endoclip_jax.synthetic.sampling import Lesion, sample_mentions

_VALUES = dict(ASPECTS)
_YAMADA = {"Is": ("I", "II"), "Isp": ("III",), "Ip": ("IV",)}
_PARIS = {form: (f"0-{form}",) for form in ("Is", "Isp", "Ip", "IIa", "IIb", "IIc")}
_FORM_WORDS = {
    "Is": ("protruded", "sessile"),
    "Isp": ("protruded", "subpedunculated"),
    "Ip": ("protruded", "pedunculated"),
    "IIa": ("flat_elevated", None),
    "IIb": ("flat", None),
    "IIc": ("depressed", None),
    "mass": ("mass", None),
}
_LST_FLAGS = {
    "LST": ("lst",),
    "G": ("lst", "granular"),
    "NG": ("lst", "non_granular"),
    "G_H": ("lst", "granular"),
    "G_NM": ("lst", "granular", "nodular_mixed"),
    "NG_FE": ("lst", "non_granular"),
    "NG_PD": ("lst", "non_granular", "pseudodepressed"),
}
_MICRO_CODES = {
    "nonneoplastic_pattern": (("nice", "1"), ("jnet", "1"), ("kudo", "I"), ("kudo", "II")),
    "regular_neoplastic_pattern": (
        ("nice", "2"), ("jnet", "2A"), ("kudo", "IIIs"), ("kudo", "IIIL"), ("kudo", "IV"),
    ),
    "irregular_pattern": (("jnet", "2B"), ("kudo", "VI")),
    "invasive_pattern": (("nice", "3"), ("jnet", "3"), ("kudo", "VN")),
}  # fmt: skip
_SEGMENT_ORDER = {name: i for i, name in enumerate(tables.LOCATIONS)}
_VERGE_CM = {"rectum": (4, 14), "sigmoid_colon": (18, 38), "descending_colon": (42, 58)}
P_MICRO_IN_WORDS = 0.25
P_NO_LOCATION = 0.02


@dataclass(frozen=True)
class Finding:
    """The mentioned facts of one lesion (or inseparable group), independent of the language."""

    lesions: tuple[int, ...]
    locations: tuple[str, ...]
    count: int = 1
    approximate: bool = False
    distance_cm: int | None = None
    size_mm: tuple[int, int] | None = None
    size_word: str | None = None
    form: str | None = None
    """A form of `tables.FORMS` other than LST, or IIa+IIc; None when not said."""
    notation: str = "words"
    """paris | yamada | words | both (Paris code and words)."""
    yamada: str | None = None
    lst: str | None = None
    """LST, G, NG or a subtype of `tables.LST_TYPES`; None when not said."""
    surface: tuple[str, ...] = ()
    colour: tuple[str, ...] = ()
    margin: tuple[str, ...] = ()
    micro: tuple[str, str] | None = None
    """(nice | jnet | kudo, code) or ("words", bit name)."""
    secondary: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    """Secondary features the report denies."""
    treatment: tuple[str, ...] = ()


@dataclass(frozen=True)
class Passage:
    """One piece of the findings section.

    kind: `alone` (one finding); `each` ("in A and B one each": everything but the site shared);
    `paired` (shared form, own sites and sizes); `listed` (one site, shared form, sizes listed,
    colour and pattern of the largest);
    `cluster` (one grouped finding).
    """

    kind: str
    findings: tuple[Finding, ...]


def _present(lesion: Lesion, aspect: str) -> tuple[str, ...]:
    block = lesion.bits[aspect_slice(aspect)]
    return tuple(v for v, on in zip(_VALUES[aspect], block, strict=True) if on)


def _spoken_form(lesion: Lesion) -> str:
    """The form a doctor writes when the lesion is not called an LST."""
    if lesion.form == "LST":
        return "IIa+IIc" if lesion.lst_type == "NG_PD" else "IIa"
    if lesion.form == "IIc" and "flat_elevated" in _present(lesion, "gross_form"):
        return "IIa+IIc"
    return lesion.form


def _pick(rng: np.random.Generator, options: Sequence[Any]) -> Any:
    return options[int(rng.integers(len(options)))]


def _notation(rng: np.random.Generator, form: str, chinese: bool) -> tuple[str, str | None]:
    if form == "IIa+IIc":
        return "paris", None
    if form == "mass":
        return "words", None
    if chinese and form in _YAMADA and rng.random() < 0.3:
        return "yamada", _pick(rng, _YAMADA[form])
    return str(rng.choice(["paris", "words", "both"], p=[0.35, 0.40, 0.25])), None


def _treatment(rng: np.random.Generator, lesion: Lesion) -> tuple[str, ...]:
    if lesion.form == "mass":
        return ("biopsy",)
    if rng.random() < 0.05:
        return ()
    if lesion.size_mm <= 5:
        return (_pick(rng, ("forceps_removal", "cold_snare", "cold_snare")),)
    if lesion.size_mm < 10:
        return (_pick(rng, ("cold_snare", "cold_snare", "hot_snare", "emr")),)
    done = _pick(rng, ("hot_snare", "emr", "emr") if lesion.size_mm < 20 else ("emr", "esd"))
    return (done, "clip") if rng.random() < 0.4 else (done,)


def mention(rng: np.random.Generator, lesion: Lesion, index: int, *, chinese: bool) -> Finding:
    """What a routine report says of one lesion, with the mention rates of `tables.P_MENTION`."""
    said = {aspect: bool(flag[0]) for aspect, flag in sample_mentions(rng, 1).items()}
    size_mm, size_word = None, None
    if said["size_class"]:
        size = int(lesion.size_mm)
        if (size <= 5 or size >= 30) and rng.random() < 0.08:
            size_word = _present(lesion, "size_class")[0]
        elif size >= 3 and rng.random() < 0.08:
            size_mm = (size - (1 if size < 10 else 2), size)
        else:
            size_mm = (size, size)
    lst = None
    if lesion.lst_type and said["lst_growth"]:
        lst = lesion.lst_type
        if rng.random() < 0.15:
            lst = _pick(rng, ("LST", lst.split("_")[0]))
    form = _spoken_form(lesion) if said["gross_form"] and lst is None else None
    notation, yamada = _notation(rng, form, chinese) if form else ("words", None)
    micro = None
    if said["microstructure"]:
        (pattern,) = _present(lesion, "microstructure")
        in_words = rng.random() < P_MICRO_IN_WORDS
        micro = ("words", pattern) if in_words else _pick(rng, _MICRO_CODES[pattern])
    secondary = _present(lesion, "secondary_features") if said["secondary_features"] else ()
    absent: tuple[str, ...] = ()
    if rng.random() < 0.12:
        truly = _present(lesion, "secondary_features")
        options = ("ulcer_erosion", "central_depression", "bleeding_friable")
        absent = tuple(f for f in options if f not in truly and rng.random() < 0.6)
    locations = (lesion.location,) if rng.random() >= P_NO_LOCATION else ()
    distance = None
    if locations and lesion.location in _VERGE_CM and rng.random() < 0.3:
        distance = int(rng.integers(*_VERGE_CM[lesion.location]))
    return Finding(
        lesions=(index,),
        locations=locations,
        distance_cm=distance,
        size_mm=size_mm,
        size_word=size_word,
        form=form,
        notation=notation,
        yamada=yamada,
        lst=lst,
        surface=_present(lesion, "surface") if said["surface"] else (),
        colour=_present(lesion, "colour") if said["colour"] else (),
        margin=_present(lesion, "margin") if said["margin"] else (),
        micro=micro,
        secondary=secondary,
        absent=absent,
        treatment=_treatment(rng, lesion),
    )


def _shared(
    rng: np.random.Generator, lesions: Sequence[Lesion], findings: Sequence[Finding]
) -> dict[str, Any]:
    """What one sentence can say of several lesions alike: only what is true of all of them."""
    first = findings[0]
    forms = {_spoken_form(x) for x in lesions}
    surfaces = {_present(x, "surface") for x in lesions}
    sayable = len(forms) == 1 and first.form is not None
    return {
        "form": first.form if sayable else None,
        "notation": first.notation if sayable else "words",
        "yamada": first.yamada if sayable else None,
        "surface": first.surface if len(surfaces) == 1 else (),
        "colour": (),
        "margin": (),
        "micro": None,
        "secondary": (),
        "absent": (),
        "distance_cm": None,
        "treatment": first.treatment,
        "size_word": None,
    }


def _joint_passage(
    rng: np.random.Generator, lesions: Sequence[Lesion], findings: Sequence[Finding]
) -> Passage | None:
    """Two or three lesions in one sentence, when their facts allow one that a reader resolves."""
    plain = all(x.form not in ("LST", "mass") and x.size_mm < 20 for x in lesions)
    if not plain or len({_spoken_form(x) for x in lesions}) > 1:
        return None
    shared = _shared(rng, lesions, findings)
    sizes = [int(x.size_mm) for x in lesions]
    own_site = [
        replace(f, **shared, locations=(x.location,))
        for f, x in zip(findings, lesions, strict=True)
    ]
    sites = [x.location for x in lesions]
    if len(set(sites)) == 1:
        own = [replace(f, size_mm=(s, s)) for f, s in zip(own_site, sizes, strict=True)]
        if sizes.count(max(sizes)) == 1:
            k = sizes.index(max(sizes))
            own[k] = replace(own[k], colour=findings[k].colour, micro=findings[k].micro)
        return Passage("listed", tuple(own))
    if len(set(sites)) < len(sites):
        return None
    one_class = len({_present(x, "size_class") for x in lesions}) == 1
    if one_class and rng.random() < 0.6:
        span = (min(sizes), max(sizes))
        return Passage("each", tuple(replace(f, size_mm=span) for f in own_site))
    own = [replace(f, size_mm=(s, s)) for f, s in zip(own_site, sizes, strict=True)]
    return Passage("paired", tuple(own))


def _cluster(
    rng: np.random.Generator, lesions: Sequence[Lesion], findings: Sequence[Finding]
) -> Passage:
    """Three lesions or more as "about 4-5 polyps of 3-8 mm, scattered"."""
    sites = sorted({x.location for x in lesions}, key=_SEGMENT_ORDER.__getitem__)
    sizes = [int(x.size_mm) for x in lesions]
    said_size = findings[0].size_mm is not None
    whole = replace(
        findings[0],
        **_shared(rng, lesions, findings),
        lst=None,
        lesions=tuple(i for f in findings for i in f.lesions),
        count=len(lesions),
        approximate=True,
        locations=tuple(sites),
        size_mm=(min(sizes), max(sizes)) if said_size else None,
    )
    return Passage("cluster", (whole,))


def plan_passages(
    rng: np.random.Generator, lesions: Sequence[Lesion], *, chinese: bool
) -> list[Passage]:
    """Groups an examination's lesions into passages, from the caecum downwards."""
    order = sorted(range(len(lesions)), key=lambda i: _SEGMENT_ORDER[lesions[i].location])
    findings = {i: mention(rng, lesions[i], i, chinese=chinese) for i in order}
    small = [i for i in order if lesions[i].form not in ("LST", "mass") and lesions[i].size_mm < 20]
    if len(small) >= 3 and rng.random() < 0.3:
        rest = [i for i in order if i not in small]
        cluster = _cluster(rng, [lesions[i] for i in small], [findings[i] for i in small])
        return [cluster, *(Passage("alone", (findings[i],)) for i in rest)]
    passages = []
    left = list(order)
    while left:
        first = left.pop(0)
        partners = [i for i in left if _spoken_form(lesions[i]) == _spoken_form(lesions[first])]
        joint = None
        if partners and rng.random() < 0.5:
            together = [first, *partners[: 2 if rng.random() < 0.25 else 1]]
            joint = _joint_passage(
                rng, [lesions[i] for i in together], [findings[i] for i in together]
            )
        if joint is None:
            passages.append(Passage("alone", (findings[first],)))
            continue
        passages.append(joint)
        left = [i for i in left if all(i not in f.lesions for f in joint.findings)]
    return passages


def renumber(passages: Sequence[Passage]) -> tuple[list[Passage], list[int]]:
    """Passages whose lesions count up in order of mention, and the old index of each lesion."""
    order = [i for p in passages for f in p.findings for i in f.lesions]
    new = {old: i for i, old in enumerate(order)}
    renumbered = [
        replace(
            p,
            findings=tuple(
                replace(f, lesions=tuple(new[i] for i in f.lesions)) for f in p.findings
            ),
        )
        for p in passages
    ]
    return renumbered, order


def as_item(finding: Finding) -> dict[str, Any]:
    """The finding as the extraction schema would hold it (without wording), for scoring."""
    attributes: dict[str, list[str]] = {aspect: [] for aspect, _ in ASPECTS}
    if finding.size_word:
        attributes["size_class"] = [finding.size_word]
    paris: list[str] = []
    if finding.form == "IIa+IIc":
        paris = ["0-IIa", "0-IIc"]
    elif finding.form and finding.notation in ("paris", "both"):
        paris = list(_PARIS[finding.form])
    elif finding.form and finding.notation == "words":
        gross, attachment = _FORM_WORDS[finding.form]
        attributes["gross_form"] = [gross]
        attributes["attachment"] = [attachment] if attachment else []
    attributes["lst_growth"] = list(_LST_FLAGS[finding.lst]) if finding.lst else []
    for aspect, values in (
        ("surface", finding.surface),
        ("colour", finding.colour),
        ("margin", finding.margin),
        ("secondary_features", finding.secondary),
    ):
        attributes[aspect] = list(values)
    codes: dict[str, Any] = {"kudo": [], "nice": None, "jnet": None}
    if finding.micro:
        system, value = finding.micro
        if system == "words":
            attributes["microstructure"] = [value]
        else:
            codes[system] = [value] if system == "kudo" else value
    low, high = map(float, finding.size_mm) if finding.size_mm else (None, None)
    return {
        "count": finding.count,
        "count_is_approximate": finding.approximate,
        "location": list(finding.locations),
        "distance_from_anal_verge_cm": finding.distance_cm,
        "size_mm_min": low,
        "size_mm_max": high,
        "paris": paris,
        "yamada": finding.yamada,
        **codes,
        "attributes": attributes,
        "intervention": list(finding.treatment) or ["none_stated"],
    }


def item_bits(finding: Finding) -> np.ndarray:
    """The mentioned bits of the finding after the normaliser's closure, uint8[40]."""
    return np.asarray(attribute_bits(as_item(finding)), np.uint8)
