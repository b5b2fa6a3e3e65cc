"""Extraction by rules: report in, object of ``data/schema.json`` out; offline, repeatable."""

from __future__ import annotations

from collections.abc import Iterable

from endoclip_jax.records.attributes import attribute_bits, bit_values, contradictions
from endoclip_jax.records.extraction.describe import describe
from endoclip_jax.records.extraction.frames import Frame
from endoclip_jax.records.extraction.items import Case, Item
from endoclip_jax.records.extraction.lexicon import Token
from endoclip_jax.records.extraction.lists import mark_elements
from endoclip_jax.records.extraction.reader import Reader
from endoclip_jax.records.extraction.scan import scan
from endoclip_jax.records.extraction.scope import settle
from endoclip_jax.records.extraction.sections import Section, Sentence, sections, sentences
from endoclip_jax.records.extraction.tables import cell_tokens, column_units
from endoclip_jax.records.extraction.text import Folded, fold, language

EXTRACTOR = {"name": "rules", "version": "1.2"}

_SEEN = frozenset({"attribute", "code", "kudo", "lst", "lesion", "weak_lesion", "other", "negated"})
_PLACES = frozenset({"site", "background", "weak_background", "aside"})
_KUDO_ORDER = ("I", "II", "IIIs", "IIIL", "IV", "VI", "VN")
_PARIS_ORDER = ("0-Ip", "0-Isp", "0-Is", "0-IIa", "0-IIb", "0-IIc", "0-III")


def extract(report: str) -> dict:
    """What the findings of a report say, as an object of ``data/schema.json``.

    The findings section decides; the impression is read only when there is nothing else, and to
    mark contradictions (``uncertain``).
    """
    folded = fold(report)
    parts = sections(folded)
    primary = _primary(parts)
    reading = _read(folded, primary)
    items = reading.case.finish()
    polyps = [_polyp(folded, number, item) for number, item in enumerate(items, 1)]
    uncertain = reading.case.uncertain or any(contradictions(polyp) for polyp in polyps)
    impressions = [part for part in parts if part.name == "impression" and part not in primary]
    uncertain |= _contradicted(items, _read(folded, impressions).case.finish())
    approximate = any(polyp["count_is_approximate"] for polyp in polyps)
    return {
        "language": language(folded.text),
        "diagnostic_sentences": reading.diagnostic,
        "polyp_present": bool(polyps),
        "polyp_total": None if approximate else sum(polyp["count"] for polyp in polyps),
        "polyps": polyps,
        "other_findings": list(reading.others),
        "uncertain": uncertain,
    }


def instructions(report: str) -> list[str]:
    """Sentences of a report that speak to a machine, verbatim; they are evidence of nothing."""
    folded = fold(report)
    return [
        folded.verbatim(sentence.start, sentence.end)
        for part in sections(folded)
        for sentence in sentences(folded, part)
        if any(token.kind == "instruction" for token in _tokens(folded, sentence, []))
    ]


class _Reading:
    """A case with what else its sentences say."""

    def __init__(self) -> None:
        self.case = Case()
        self.diagnostic: list[str] = []
        self.others: dict[str, None] = {}


def _primary(parts: list[Section]) -> list[Section]:
    """The sections that describe this examination."""
    for names in (("findings",), ("untitled", "procedure"), ("impression",)):
        chosen = [part for part in parts if part.name in names]
        if chosen:
            return chosen
    return []


def _read(folded: Folded, parts: Iterable[Section]) -> _Reading:
    reading = _Reading()
    for part in parts:
        heading: list[str] = []
        paragraph = -1
        units: list[str] | None = None
        for sentence in sentences(folded, part):
            if sentence.paragraph != paragraph:
                heading, paragraph = [], sentence.paragraph
            units = column_units(folded.lower[sentence.start : sentence.end]) or units
            tokens = _tokens(folded, sentence, units or [])
            if any(token.kind == "instruction" for token in tokens):
                continue
            text = folded.text[sentence.start : sentence.end]
            frames = Reader(tokens, text).read()
            if frames and frames[0].heading:
                heading = list(frames[0].sites)
            reading.case.read(frames, sentence.start, heading, sentence.entry)
            _note(reading, folded, sentence, tokens, frames)
    return reading


def _tokens(folded: Folded, sentence: Sentence, units: list[str]) -> list[Token]:
    text = folded.text[sentence.start : sentence.end]
    tokens = scan(text, folded.lower[sentence.start : sentence.end])
    if units and "|" in text:
        tokens = sorted(tokens + cell_tokens(text, units), key=lambda token: token.start)
    return mark_elements(settle(tokens, text), text)


def _note(
    reading: _Reading, folded: Folded, sentence: Sentence, tokens: list[Token], frames: list[Frame]
) -> None:
    kinds = {token.kind for token in tokens}
    procedural = "procedure" in kinds and not kinds & {"lesion", "other", "negated"}
    if "lesion" in kinds and not any(frame.introduces or frame.says_something for frame in frames):
        kinds.discard("lesion")
    seen = kinds & _SEEN or ("normal" in kinds and kinds & _PLACES)
    if seen and not procedural:
        reading.diagnostic.append(folded.verbatim(sentence.start, sentence.end))
    for token in tokens:
        if token.kind == "other":
            reading.others[token.value] = None


def _contradicted(items: list[Item], impression: list[Item]) -> bool:
    """Whether the impression names lesions elsewhere, or another number of them."""
    if not impression:
        return False
    if not items:
        return True
    places = {site for item in items for site in item.sites}
    named = {site for item in impression for site in item.sites} - {"diffuse"}
    if places and named and not named <= places | {"rectosigmoid_junction"}:
        return True
    stated = sum(item.count for item in impression)
    found = sum(item.count for item in items)
    vague = any(item.approximate for item in [*items, *impression])
    return not vague and stated > found


def _polyp(folded: Folded, number: int, item: Item) -> dict:
    systems: dict[str, list[str]] = {}
    for system, code in item.codes:
        systems.setdefault(system, []).append(code)
    low, high = item.size or (None, None)
    raw: dict[str, list[str]] = {}
    for aspect, value in item.attributes:
        raw.setdefault(aspect, []).append(value)
    polyp = {
        "polyp_index": number,
        "count": item.count,
        "count_is_approximate": item.approximate,
        "description": "",
        "evidence": _evidence(folded, item),
        "location": item.sites,
        "distance_from_anal_verge_cm": _plain(item.distance),
        "size_mm_min": _plain(low),
        "size_mm_max": _plain(high),
        "paris": sorted(systems.get("paris", ()), key=_PARIS_ORDER.index),
        "yamada": systems.get("yamada", [None])[0],
        "kudo": sorted(systems.get("kudo", ()), key=_KUDO_ORDER.index),
        "nice": systems.get("nice", [None])[0],
        "jnet": systems.get("jnet", [None])[-1],
        "attributes": raw,
        "intervention": sorted(set(item.treatments) - {""}) or ["none_stated"],
    }
    attributes = bit_values(attribute_bits(polyp))
    # The schema keeps size words only where no number was given.
    attributes["size_class"] = [] if item.size else attributes["size_class"]
    if contradictions(polyp):
        attributes |= {aspect: raw.get(aspect, []) for aspect in contradictions(polyp)}
    polyp["attributes"] = attributes
    polyp["description"] = describe(polyp)
    return polyp


def _evidence(folded: Folded, item: Item) -> list[str]:
    spans = [folded.verbatim(start, end) for start, end in sorted(item.evidence)]
    return list(dict.fromkeys(span for span in spans if span))


def _plain(value: float | int | None) -> float | int | None:
    """A number as the schema's examples have it: 6, not 6.0."""
    if value is None:
        return None
    return int(value) if float(value).is_integer() else value
