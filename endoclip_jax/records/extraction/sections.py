"""A report as sections, and a section as sentences, by position in the folded text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from endoclip_jax.records.extraction.lexicon import lexicon, trie_pattern
from endoclip_jax.records.extraction.text import Folded


@dataclass(frozen=True, slots=True)
class Section:
    """What a stretch of the report is: findings, impression, procedure, aside or untitled."""

    name: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence, list marker stripped; ``entry`` is the marker's number.

    ``paragraph`` counts the lines of the section.
    """

    start: int
    end: int
    paragraph: int
    entry: int | None = None


@cache
def _heading() -> re.Pattern:
    # A heading opens a line or follows a full stop, and ends in a colon or fills its line.
    title = trie_pattern(lexicon().headings)
    return re.compile(
        rf"(?:^|(?<=[\n。.;!?])|(?<=[\n。.;!?] ))[ *#【\[\d]*\.?\s*"
        rf"(?P<title>{title})[】\]]?[* ]*(?:\([^)\n]*\))?[ *]*(?::|-(?= )|(?=\n)|(?<=】)|(?<=\]))"
    )


def sections(folded: Folded) -> list[Section]:
    """Sections in order; text before the first heading is ``untitled``."""
    found: list[Section] = []
    name, start = "untitled", 0
    for match in _heading().finditer(folded.lower):
        found.append(Section(name, start, match.start()))
        name, start = lexicon().headings[match["title"]], match.end()
    found.append(Section(name, start, len(folded.text)))
    return [section for section in found if folded.text[section.start : section.end].strip()]


_BREAK = re.compile(r"[。!?]+|\n+|\.(?=\s|$|[一-鿿])|\.(?=[A-Z][a-z])")
_MARKER = re.compile(
    r"\s*(?:[-*•·>]+\s*|\(?\d{1,2}(?:[)、]|\.(?=\s|[^\d\s])|:(?=\s))\s*|\(\d{1,2}\)\s*|[a-z]\)\s*)+"
)


def sentences(folded: Folded, section: Section) -> Iterator[Sentence]:
    """Sentences of a section; numbers, abbreviations and wrapped lines do not end one."""
    start, paragraph = section.start, 0
    text = folded.text
    for match in _BREAK.finditer(text, section.start, section.end):
        if not _ends_sentence(text, start, match):
            continue
        stop = match.start() if match[0].startswith("\n") else match.end()
        yield from _sentence(text, start, stop, paragraph)
        paragraph += match[0].startswith("\n")
        start = match.end()
    yield from _sentence(text, start, section.end, paragraph)


def _sentence(text: str, start: int, stop: int, paragraph: int) -> Iterator[Sentence]:
    marker = _MARKER.match(text, start, stop)
    entry = None
    if marker:
        number = re.search(r"\d+", marker[0])
        entry = int(number[0]) if number else None
        start = marker.end()
    while start < stop and text[start] in " \n":
        start += 1
    while stop > start and text[stop - 1] in " \n":
        stop -= 1
    if stop > start:
        yield Sentence(start, stop, paragraph, entry)


def _ends_sentence(text: str, start: int, match: re.Match) -> bool:
    before, after = text[start : match.start()].rstrip(), text[match.end() : match.end() + 40]
    if match[0].startswith("\n"):
        return not _wrapped(before, after.lstrip(" "))
    if match[0] != ".":
        return True
    word = re.search(r"([A-Za-z.]+|\d+)$", before)
    if word is None:
        return True
    if word[0].lower() in lexicon().abbreviations:
        return bool(re.match(r"\s*$|\s*\n", after))
    # "1. Caecum": the number is a list marker, not a sentence.
    return not (word[0].isdigit() and not before[: word.start()].strip(" \n(#"))


def _wrapped(before: str, after: str) -> bool:
    """Whether a line break only wraps a line: nothing has ended and the next line goes on."""
    if not before or before[-1] in ".。;:!?|" or not after or "|" in after.partition("\n")[0]:
        return False
    if before[-1] in ",、(":
        return True
    return after[0].islower() or bool(re.match(r"(?:mm|cm)\b|[,、;)]", after))
