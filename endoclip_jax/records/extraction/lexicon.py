"""The vocabulary of ``data/lexicon.json`` compiled to one scanner.

A term is literal text with ``{a|b|}`` for alternatives (the empty one makes it optional) and
``[a]`` for an optional part; a term that starts with ``re:`` is a regular expression. Literal
terms become a trie, so the longest term wins: "无蒂" is a kind of attachment, not a negation.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any


@dataclass(frozen=True, slots=True)
class Token:
    """A recognised piece of a sentence: what it is, what it says, where it stands."""

    kind: str
    value: Any
    start: int
    end: int


@dataclass(frozen=True)
class Lexicon:
    """Terms by text, patterns by group name, and the tables other rooms ask for."""

    terms: dict[str, tuple[str, Any]]
    adjectives: dict[str, dict[str, str]]
    literal: re.Pattern
    patterns: tuple[tuple[str, tuple[str, Any]], ...]
    site_codes: dict[str, str]
    abbreviations: frozenset[str]
    headings: dict[str, str]


def expand(term: str) -> Iterator[str]:
    """All spellings of a term, left to right."""
    opening = re.search(r"[{\[]", term)
    if opening is None:
        yield term
        return
    start = opening.start()
    depth = 0
    parts, part_start = [], start + 1
    for position in range(start, len(term)):
        character = term[position]
        if character in "{[":
            depth += 1
        elif character in "}]":
            depth -= 1
        if (character == "|" and depth == 1) or depth == 0:
            parts.append(term[part_start:position])
            part_start = position + 1
        if depth == 0:
            break
    if term[start] == "[":
        parts.append("")
    for tail in expand(term[position + 1 :]):
        for part in parts:
            for middle in expand(part):
                yield term[:start] + middle + tail


def trie_pattern(words: Iterable[str]) -> str:
    """A regular expression for the longest of the words; a Latin word must end where it matches."""
    root: dict = {}
    for word in words:
        node = root
        for character in word:
            node = node.setdefault(character, {})
        node[""] = {}

    def pattern(node: dict, last: str) -> str:
        branches = [
            re.escape(character) + pattern(child, character)
            for character, child in node.items()
            if character
        ]
        if "" in node:
            branches.append("(?![a-z])" if last.isascii() and last.isalpha() else "")
        return branches[0] if len(branches) == 1 else f"(?:{'|'.join(branches)})"

    return pattern(root, "")


def _entries(data: dict) -> Iterator[tuple[str, str, Any]]:
    """(term, kind, value); the first entry of a spelling is the one that counts."""
    for aspect, values in data["attributes"].items():
        for value, terms in values.items():
            # "Laterally spreading tumour" is a noun as well as a property.
            kind, meaning = ("lst", (value,)) if value == "lst" else ("attribute", (aspect, value))
            yield from ((term, kind, meaning) for term in terms)
    flat = ("seen", "definite", "background", "weak_background", "normal", "procedure")
    tables = ("topics", "sites", "treatments", "select", "lesions", "others", "counts")
    singular = {"topics": "topic", "sites": "site", "treatments": "treatment", "lesions": "lesion"}
    singular |= {"others": "other", "counts": "count", "select": "select"}
    yield from ((term, "negation", None) for term in data["negation"]["before"])
    yield from ((term, "denied", None) for term in data["negation"]["after"])
    for reach, terms in data["history"].items():
        yield from ((term, "history", reach) for term in terms)
    for table in tables:
        for value, terms in data[table].items():
            yield from ((term, singular[table], value) for term in terms)
    yield from ((term, "weak_lesion", "polyp") for term in data["weak_lesions"])
    yield from ((term, "reference", None) for term in data["site_references"])
    yield from ((term, "each", None) for term in data["each_before"])
    for kind in flat:
        yield from ((term, kind, None) for term in data[kind])
    yield from ((term, "stop", None) for term in data["negation"]["stop"])
    yield from ((term, "instruction", None) for term in data["instructions"])
    for table in ("not_lesions", "not_counts", "ignored"):
        yield from ((term, "ignored", None) for term in data[table])
    for adjective in data["adjectives"]:
        yield from ((term, "adjective", None) for term in adjective["terms"])


@cache
def lexicon() -> Lexicon:
    """The package's lexicon, loaded and compiled once."""
    source = resources.files("endoclip_jax.records").joinpath("data/lexicon.json")
    data = json.loads(source.read_text("utf-8"))
    terms: dict[str, tuple[str, Any]] = {}
    patterns: list[tuple[str, tuple[str, Any]]] = []
    for term, kind, value in _entries(data):
        if term.startswith("re:"):
            patterns.append((term[3:], (kind, value)))
            continue
        for spelling in expand(term):
            # An alternative left out leaves two blanks; the text to match has one.
            terms.setdefault(" ".join(spelling.split()), (kind, value))
    terms.pop("", None)
    adjectives = {
        spelling: {key: name for key, name in entry.items() if key != "terms"}
        for entry in reversed(data["adjectives"])
        for term in entry["terms"]
        for spelling in expand(term)
    }
    latin = [term for term in terms if term[0].isascii() and term[0].isalnum()]
    other = [term for term in terms if not (term[0].isascii() and term[0].isalnum())]
    literal = re.compile(rf"(?<![a-z0-9]){trie_pattern(latin)}|{trie_pattern(other)}")
    return Lexicon(
        terms=terms,
        adjectives=adjectives,
        literal=literal,
        patterns=tuple(patterns),
        site_codes=data["site_codes"],
        abbreviations=frozenset(data["abbreviations"]),
        headings={
            spelling: section
            for section, headings in data["sections"].items()
            for heading in headings
            for spelling in expand(heading)
        },
    )
