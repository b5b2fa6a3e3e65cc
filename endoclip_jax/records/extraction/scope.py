"""What in a sentence holds now and for a lesion: adjectives, negation, history, other subjects.

Each pass takes a sentence's tokens and gives them back with kinds changed: ``negated`` for what is
denied, ``past`` for what is history, ``aside`` for what describes something that is no lesion.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from endoclip_jax.records.extraction.lexicon import Token, lexicon

_STATEMENTS = frozenset({"attribute", "lesion", "weak_lesion", "other", "lst", "code", "kudo"})
_DETAILS = _STATEMENTS | {"size", "bare_size", "site", "count", "suffix_count", "distance"}
_PHRASE_END = frozenset({",", ";", "|", "(", ")"})
_REMOVED = re.compile(r"removed|resected|excised|treated|polypectomy|emr|esd|切除|摘除|治疗")
_VERB = re.compile(r"\b(?:was|were|is|are|had|has|have|showed?s?|measured|appeared|seemed|there)\b")


def _is_separator(token: Token, marks: frozenset[str] = _PHRASE_END) -> bool:
    return token.kind == "separator" and token.value in marks


def phrases(tokens: Sequence[Token]) -> list[range]:
    """Index ranges between commas, semicolons, bars and parentheses."""
    found, start = [], 0
    for position, token in enumerate(tokens):
        if _is_separator(token):
            found.append(range(start, position))
            start = position + 1
    found.append(range(start, len(tokens)))
    return [phrase for phrase in found if phrase]


def settle(tokens: list[Token], text: str) -> list[Token]:
    """All passes, in order."""
    tokens = _adjectives(tokens, text)
    tokens = _negation(tokens, text)
    tokens = _history(tokens, text)
    return _other_subjects(tokens, text)


def _adjectives(tokens: list[Token], text: str) -> list[Token]:
    """ "Irregular" is a surface, a margin or a pattern, by the noun it goes with."""
    table = lexicon().adjectives
    settled = []
    for position, token in enumerate(tokens):
        meanings = table.get(text[token.start : token.end].lower())
        if meanings is None or token.kind in ("lesion", "site", "ignored"):
            settled.append(token)
            continue
        topic = _topic(tokens, position, text)
        if topic in meanings:
            aspect, _, value = meanings[topic].partition(".")
            settled.append(replace(token, kind="attribute", value=(aspect, value)))
        elif token.kind in ("normal", "background") or (
            token.kind == "attribute" and topic in (None, "surface", "colour")
        ):
            settled.append(token)
        else:
            settled.append(replace(token, kind="aside"))
    return settled


def _topic(tokens: Sequence[Token], position: int, text: str) -> str | None:
    """The topic noun an adjective belongs to: next in its noun phrase, else before it."""
    chain = ("attribute", "adjective", "stop")  # "a clear but irregular margin"
    after = position + 1
    while after < len(tokens) and (
        tokens[after].kind in chain or _is_separator(tokens[after], frozenset({",", "and"}))
    ):
        word = text[tokens[after].start : tokens[after].end].lower()
        contrast = tokens[after].kind != "stop" or word in ("but", "yet", "though", "但")
        if text[tokens[after - 1].end : tokens[after].start].strip() or not contrast:
            break  # other words end the noun phrase: "smooth, with clear borders"
        following = tokens[after + 1].kind if after + 1 < len(tokens) else ""
        if _is_separator(tokens[after]) and following not in chain:
            break
        after += 1
    if (
        after < len(tokens)
        and tokens[after].kind == "topic"
        and tokens[after].start - tokens[after - 1].end <= 1
    ):
        return tokens[after].value
    for token in reversed(tokens[:position]):
        if token.kind == "topic":
            return token.value
        if _is_separator(token) or token.kind in ("lesion", "stop", "size", "count"):
            return None
    return None


def _negation(tokens: list[Token], text: str) -> list[Token]:
    negated = [False] * len(tokens)
    for position, token in enumerate(tokens):
        if token.kind == "negation":
            for reached in _denied_after(tokens, position, text):
                negated[reached] = True
        elif token.kind == "denied":
            for reached in _denied_before(tokens, position):
                negated[reached] = True
    return [
        replace(token, kind="negated", value=token.kind) if no and token.kind in _DETAILS else token
        for token, no in zip(tokens, negated, strict=True)
    ]


def _denied_after(tokens: Sequence[Token], position: int, text: str) -> list[int]:
    """Positions a negation reaches: its list, across "or", and commas that go on to an "or"."""
    reached: list[int] = []
    chinese = not text[tokens[position].start].isascii()
    last = len(tokens)
    index = position + 1
    while index < last:
        token = tokens[index]
        gap = text[tokens[index - 1].end : token.start]
        if token.kind in ("select", "definite", "label", "negation") and reached:
            break
        if token.kind in ("stop", "seen") or (_VERB.search(gap) and reached):
            break
        if _is_separator(token, frozenset({";", "|", ")", ":"})):
            break
        if _is_separator(token, frozenset({"and", "or", ","})):
            following = tokens[index + 1] if index + 1 < last else None
            if following is None or not reached:
                index += 1
                continue
            if following.kind == "separator":
                index += 1
                continue
            if following.kind not in _STATEMENTS | {"background", "ignored", "topic"}:
                break
            if token.value == "," and not _list_goes_on(tokens, index, text, chinese, position):
                break
        elif token.kind in ("count", "size") and reached:
            break
        else:
            reached.append(index)
        index += 1
    return reached


def _list_goes_on(tokens: Sequence[Token], comma: int, text: str, chinese: bool, cue: int) -> bool:
    """Whether what follows a comma is still on the list of denied things."""
    following = tokens[comma + 1]
    if following.kind == "attribute" and following.value[0] not in ("secondary_features",):
        plain_list = False
    else:
        plain_list = following.kind in ("lesion", "other", "attribute")
    rest = tokens[comma + 2 : comma + 3]
    ends_there = not rest or rest[0].kind == "separator"
    if chinese:
        return plain_list and ends_there and tokens[comma].end == following.start
    if following.kind in ("lesion", "other") and ends_there:
        return True
    opens_clause = cue == 0 or _is_separator(tokens[cue - 1], frozenset({";"}))
    if opens_clause and plain_list and ends_there:
        return True
    for token in tokens[comma + 1 :]:
        if _is_separator(token, frozenset({"or"})):
            return True
        if not (token.kind in _STATEMENTS or _is_separator(token, frozenset({","}))):
            return False
    return False


def _denied_before(tokens: Sequence[Token], position: int) -> list[int]:
    reached = []
    for index in range(position - 1, -1, -1):
        token = tokens[index]
        if token.kind in _STATEMENTS or token.kind in ("site", "topic"):
            reached.append(index)
        elif token.kind not in ("history", "definite") and not _is_separator(
            token, frozenset({",", "and", "or"})
        ):
            break
    return reached


def _history(tokens: list[Token], text: str) -> list[Token]:
    past = [False] * len(tokens)
    clauses = phrases(tokens)
    for phrase in clauses:
        for position in phrase:
            token = tokens[position]
            if token.kind != "history":
                continue
            if token.value == "forward":
                reach = range(position, phrase.stop)
            elif token.value == "adjective":
                reach = _noun_after(tokens, position, phrase.stop)
            elif token.value == "back":
                reach = range(phrase.start, position)
            else:
                reach = _dated(tokens, phrase, text)
            for index in reach:
                past[index] = True
    return [
        replace(token, kind="past", value=token.kind) if gone and token.kind in _DETAILS else token
        for token, gone in zip(tokens, past, strict=True)
    ]


def _noun_after(tokens: Sequence[Token], position: int, stop: int) -> range:
    for index in range(position + 1, min(position + 5, stop)):
        if tokens[index].kind in ("lesion", "weak_lesion"):
            return range(position, index + 1)
        if tokens[index].kind not in ("attribute", "size", "site"):
            break
    return range(0)


def _dated(tokens: Sequence[Token], phrase: range, text: str) -> range:
    """What a date puts in the past: its phrase, and its clause when the phrase is the predicate."""
    kinds = {tokens[index].kind for index in phrase}
    said = text[tokens[phrase.start].start : tokens[phrase.stop - 1].end]
    if not _REMOVED.search(said.lower()) or kinds & {"lesion", "weak_lesion"}:
        return phrase
    start = phrase.start
    while start > 0 and not _is_separator(tokens[start - 1], frozenset({";", "|"})):
        start -= 1
    return range(start, phrase.stop)


def _other_subjects(tokens: list[Token], text: str) -> list[Token]:
    """Takes away what describes the mucosa, a wound or the bowel rather than a lesion."""
    aside = [False] * len(tokens)
    for phrase in phrases(tokens):
        kinds = [tokens[index].kind for index in phrase]
        lesion = not {"lesion", "weak_lesion", "lst"}.isdisjoint(kinds)
        backgrounds = [
            index
            for index in phrase
            if tokens[index].kind == "background"
            or (tokens[index].kind in ("weak_background", "normal", "procedure") and not lesion)
        ]
        for background in backgrounds:
            hard = tokens[background].kind in ("background", "weak_background")
            for index in _described(tokens, phrase, background, lesion, hard):
                aside[index] = True
    return [
        replace(token, kind="aside") if other and token.kind in _DETAILS - {"other"} else token
        for token, other in zip(tokens, aside, strict=True)
    ]


def _described(
    tokens: Sequence[Token], phrase: range, background: int, lesion: bool, hard: bool
) -> list[int]:
    found = []
    for index in range(background + 1, phrase.stop):
        if tokens[index].kind in ("topic", "lesion", "weak_lesion", "select", "label"):
            break
        if not lesion or tokens[index].kind == "attribute":
            found.append(index)
    topics = any(tokens[index].kind == "topic" for index in range(phrase.start, background))
    for index in range(background - 1, phrase.start - 1, -1):
        token = tokens[index]
        if token.kind == "topic" or (lesion and token.kind not in ("attribute", "separator")):
            break
        if not lesion and topics and token.kind == "attribute":
            break
        if not hard and token.kind in ("attribute", "size"):
            break
        found.append(index)
    return found
