"""A sentence as a sequence of tokens: vocabulary, quantities and separators in reading order."""

from __future__ import annotations

import re
from functools import cache

from endoclip_jax.records.extraction.lexicon import Token, lexicon
from endoclip_jax.records.extraction.quantities import Count, quantities

_SEPARATOR = re.compile(
    r"[,;:()|、/+]|(?<![a-z])(?:and|or|nor|as well as|plus)(?![a-z])|及|和|与|或|并|伴"
)
_SAME = {"as well as": "and", "plus": "and", "及": "and", "和": "and", "与": "and", "并": "and"}
_SAME |= {"或": "or", "nor": "or", "伴": ",", "/": "and", "+": "and"}


@cache
def _patterns() -> tuple[re.Pattern, tuple]:
    entries = lexicon().patterns
    # Named by an empty group at the end, for the reason of `quantities`: first characters show.
    joined = "|".join(f"(?:{pattern})(?P<p{i}>)" for i, (pattern, _) in enumerate(entries))
    return re.compile(joined, re.IGNORECASE), tuple(entry for _, entry in entries)


def scan(text: str, lower: str) -> list[Token]:
    """Tokens of one sentence by position; of two that overlap, the earlier, then longer, stays."""
    words = lexicon()
    found = list(quantities(text))
    pattern, entries = _patterns()
    for match in pattern.finditer(lower):
        kind, value = entries[int((match.lastgroup or "p0")[1:])]
        found.append(Token(kind, value, *match.span()))
    for match in words.literal.finditer(lower):
        kind, value = words.terms[match[0]]
        if kind == "count":
            value = Count(int(value.rstrip("+")), value.endswith("+"))
        found.append(Token(kind, value, *match.span()))
    for match in _SEPARATOR.finditer(lower):
        found.append(Token("separator", _SAME.get(match[0], match[0]), *match.span()))
    found.sort(key=lambda token: (token.start, -token.end))
    tokens: list[Token] = []
    for token in found:
        if not tokens or token.start >= tokens[-1].end:
            tokens.append(token)
        elif token.end > tokens[-1].end and tokens[-1].kind in ("separator", "ignored", "count"):
            # "约0.6cm" begins like a count, "no complications" like a negation.
            tokens[-1] = token
    return tokens
