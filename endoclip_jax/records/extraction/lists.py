"""Lists after an announcement: "three polyps: 5 mm caecum (Is), 8 mm rectum (Ip), …".

Nothing but the repetition of a size or a site tells one lesion of such a list from the next. Where
the list is as long as announced, a token ``element`` is set before each of its lesions.
"""

from __future__ import annotations

from collections.abc import Sequence

from endoclip_jax.records.extraction.lexicon import Token

_NAMES_ITSELF = frozenset({"count", "lesion", "weak_lesion", "label", "select", "suffix_count"})
_PLACED = frozenset({"size", "site", "distance"})


def mark_elements(tokens: list[Token], text: str) -> list[Token]:
    """The tokens with ``element`` tokens put in, if the sentence holds such a list."""
    for position, token in enumerate(tokens):
        if token.kind == "separator" and token.value in (":", "("):
            stated = _announced(tokens[:position], text)
            stated = stated or -_is_heading(tokens[:position]) * (token.value == ":")
            stop = len(tokens) if token.value == ":" else _closing(tokens, position)
            heads = _heads(tokens, position + 1, stop) if stated else []
            if stated and (len(heads) == stated if stated > 0 else len(heads) > 1):
                return _with_elements(tokens, heads)
        dashed = position > 0 and text[tokens[position - 1].end : token.start].strip() == "-"
        if dashed and _is_heading(tokens[:position]):
            heads = _heads(tokens, position, len(tokens))
            return _with_elements(tokens, heads) if len(heads) > 1 else tokens
    return tokens


def _announced(tokens: Sequence[Token], text: str) -> int:
    """How many lesions the words before a colon announce: -1 if several, 0 if not so."""
    nouns = [place for place, token in enumerate(tokens) if token.kind == "lesion"]
    if len(nouns) != 1 or any(token.kind in ("size", "element") for token in tokens):
        return 0
    counts = [token.value for token in tokens if token.kind in ("count", "suffix_count")]
    if len(counts) > 1:
        return 0
    if counts:
        return -1 if counts[0].approximate else counts[0].number * (counts[0].number > 1)
    noun = tokens[nouns[0]]
    return -1 if text[noun.start : noun.end].lower().endswith("s") else 0


def _is_heading(tokens: Sequence[Token]) -> bool:
    """Whether a colon follows a segment's name alone: "Transverse: 2 mm Is, 6 mm IIa"."""
    kinds = {token.kind for token in tokens}
    return "site" in kinds and kinds <= {"site", "separator", "label"}


def _closing(tokens: Sequence[Token], position: int) -> int:
    for index in range(position + 1, len(tokens)):
        if tokens[index].kind == "separator" and tokens[index].value == ")":
            return index
    return len(tokens)


def _heads(tokens: Sequence[Token], start: int, stop: int) -> list[int]:
    """Where the lesions of a list begin; empty if they are not all described alike."""
    heads: list[int] = []
    seen: list[set[str]] = []
    for piece in _pieces(tokens, start, stop):
        if any(tokens[index].kind in _NAMES_ITSELF for index in piece):
            return []
        kinds = {tokens[index].kind for index in piece} & _PLACED
        if kinds and (not seen or kinds & seen[-1]):
            heads.append(piece[0])
            seen.append(set())
        if seen:
            seen[-1] |= kinds
    alike = bool(seen) and all(kinds == seen[0] for kinds in seen)
    return heads if alike else []


def _pieces(tokens: Sequence[Token], start: int, stop: int) -> list[list[int]]:
    """Indices between semicolons if there are any, else between commas and "and"s."""
    outer = _outside_parentheses(tokens, start, stop)
    marks = {tokens[index].value for index in outer if tokens[index].kind == "separator"}
    ends = {";"} if ";" in marks else {",", "and", "、"}
    pieces: list[list[int]] = [[]]
    for index in range(start, stop):
        token = tokens[index]
        if index in outer and token.kind == "separator" and token.value in ends:
            pieces.append([])
        else:
            pieces[-1].append(index)
    return [piece for piece in pieces if piece]


def _outside_parentheses(tokens: Sequence[Token], start: int, stop: int) -> set[int]:
    outer, depth = set(), 0
    for index in range(start, stop):
        token = tokens[index]
        if token.kind == "separator" and token.value in "()":
            depth += 1 if token.value == "(" else -1
        elif depth <= 0:
            outer.add(index)
    return outer


def _with_elements(tokens: Sequence[Token], heads: Sequence[int]) -> list[Token]:
    marked = []
    for index, token in enumerate(tokens):
        if index in heads:
            marked.append(Token("element", None, token.start, token.start))
        marked.append(token)
    return marked
