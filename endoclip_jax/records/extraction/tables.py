"""Pipe tables: cells that are bare numbers get the unit their column's title gives."""

from __future__ import annotations

import re

from endoclip_jax.records.extraction.lexicon import Token
from endoclip_jax.records.extraction.quantities import JOINT, NUMBER, parse_size, quantities

_CELL = re.compile(rf"\s*({NUMBER}(?:{JOINT}{NUMBER})*)\s*$")
_DISTANCE = re.compile(r"distance|verge|\bav\b|距肛")
_SYSTEM = re.compile(r"\b(?:nice|jnet)\b")
_CODES = ("nice", "jnet")
_CODE_CELL = re.compile(r"(?i)\s*(?:type\s*)?([123][ab]?|I{1,3})\s*$")
_UNIT = re.compile(r"\b(mm|cm)\b|毫米|厘米")


def column_units(lower: str) -> list[str] | None:
    """Per column "mm", "cm", "distance", "nice", "jnet" or "", if this is a table's title row."""
    cells = lower.split("|")
    if len(cells) < 3 or any(character.isdigit() for character in lower):
        return None
    units = []
    for cell in cells:
        unit = _UNIT.search(cell)
        system = _SYSTEM.search(cell)
        named = "distance" if _DISTANCE.search(cell) else system[0] if system else ""
        units.append(named or ({"毫米": "mm", "厘米": "cm"}.get(unit[0], unit[0]) if unit else ""))
    return units


def cell_tokens(text: str, units: list[str]) -> list[Token]:
    """Sizes and distances of the bare numbers in one row, by position in ``text``."""
    found, start = [], 0
    for column, cell in enumerate(text.split("|")):
        number = _CELL.match(cell)
        unit = units[column] if column < len(units) else ""
        code = _CODE_CELL.match(cell) if unit in _CODES else None
        if code:
            span = (start + code.start(1), start + code.end(1))
            read = quantities(f"{unit.upper()} {code[1]}")
            found += [Token("code", token.value, *span) for token in read if token.kind == "code"]
        elif number and unit:
            span = (start + number.start(1), start + number.end(1))
            if unit == "distance":
                found.append(Token("distance", (float(re.findall(NUMBER, number[1])[0]),), *span))
            elif (size := parse_size(number[1] + unit)) is not None:
                found.append(Token("size", size, *span))
        start += len(cell) + 1
    return found
