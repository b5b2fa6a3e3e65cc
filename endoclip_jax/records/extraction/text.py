"""One spelling for matching, with the way back to the verbatim report."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

_CHINESE = re.compile(r"[一-鿿]")
_LATIN = re.compile(r"[A-Za-z]")
_DASHES = dict.fromkeys("‐‑‒–—―−－﹣", "-")
_SPELLINGS = _DASHES | {"〜": "~", "∼": "~", "✕": "×", "✖": "×", "\t": " ", "\r": "\n", "’": "'"}


@dataclass(frozen=True, slots=True)
class Folded:
    """A report and its folded form; character i of ``text`` came from ``origin[i]``."""

    report: str
    text: str
    lower: str
    origin: tuple[int, ...]

    def verbatim(self, start: int, end: int) -> str:
        """The report's own characters for a span of the folded text."""
        if end <= start:
            return ""
        return self.report[self.origin[start] : self.origin[end - 1] + 1]


@lru_cache(maxsize=4096)
def _fold_character(character: str) -> str:
    if character in _SPELLINGS:
        return _SPELLINGS[character]
    if "①" <= character <= "⑳":  # a list marker: "①0.5cm" is no 10.5 cm
        return f" #{ord(character) - 0x245F} "
    if unicodedata.category(character) == "Cf":
        return ""
    return unicodedata.normalize("NFKC", character)


def fold(report: str) -> Folded:
    """Full-width, ligature and Roman-numeral characters in one spelling (NFKC), blanks single."""
    pieces: list[str] = []
    origin: list[int] = []
    blank = True
    for position, character in enumerate(report):
        if character > " " and character < "\x7f":
            blank = False
            pieces.append(character)
            origin.append(position)
            continue
        for folded in _fold_character(character):
            if folded == " " and blank:
                continue
            blank = folded in " \n"
            pieces.append(folded)
            origin.append(position)
    text = "".join(pieces)
    lower = text.lower()
    if len(lower) != len(text):  # a few capitals grow when lowered; positions must not move
        lower = "".join(c.lower() if len(c.lower()) == 1 else c for c in pieces)
    return Folded(report, text, lower, tuple(origin))


def language(text: str) -> str:
    """``zh`` if Chinese characters carry the text, ``en`` if Latin letters do, else ``other``."""
    chinese = len(_CHINESE.findall(text))
    latin = len(_LATIN.findall(text))
    if not chinese and not latin:
        return "other"
    return "zh" if chinese * 4 >= latin else "en"


def squeezed(text: str) -> str:
    """One spelling for comparison alone: widths folded (NFKC), no blanks."""
    return re.sub(r"\s+", "", unicodedata.normalize("NFKC", text))
