"""Numbers with what they measure: sizes, distances, counts, labels, and classification codes.

Only a length that belongs to a lesion is a size. Distances, clips, snares, stalks, volumes and
lengths of bowel are recognised too, so that they are taken for nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from endoclip_jax.records.extraction.lexicon import Token, lexicon

NUMBER = r"(?:\d+(?:\.\d+)?|\.\d+)"
UNIT = (
    r"(?:\s?-?\s?(?:mm|cm|millimet(?:er|re)s?|centimet(?:er|re)s?|毫米|厘米|公分)(?-i:(?![a-z])))"
)
JOINT = r"\s*(?:-|~|to\b|至|到|x|×|\*|乘以?|by\b)\s*"
LIST = r"\s*(?:、|/|,\s*and\b|,|\band\b|&|及|和)\s*"
_BARE_CHAIN = rf"{NUMBER}(?:{JOINT}{NUMBER})*"
_BOUND = (
    r"(?:<=?|≤|less than|under|up to|below|at most|小于|不足|不超过"
    r"|>=?|≥|more than|over|greater than|exceeding|at least|大于|超过|至少)"
)
_CHINESE_NUMBER = r"(?:\d{1,2}|[一二两三四五六七八九十]{1,2})"
_NUMBER_WORDS = (
    *("one", "two", "three", "four", "five", "six"),
    *("seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
)
_NUMBER_WORD = rf"(?:{'|'.join(sorted(_NUMBER_WORDS, key=len, reverse=True))})"
# A length may be dictated: "eight millimetres", "一厘米".
_LENGTH = (
    rf"(?:{NUMBER}|\b{_NUMBER_WORD}\b"
    r"|(?:[二三四五六七八九]?十)?[一二两三四五六七八九]|[二三四五六七八九]?十)"
)
# How a length begins: a look ahead that spares most places of a text the chain's many ways.
_BEGINS = rf"(?=[\d.一二两三四五六七八九十]|\b[{''.join(sorted({w[0] for w in _NUMBER_WORDS}))}])"
_CHAIN = rf"{_BEGINS}(?:(?:{NUMBER}{UNIT}?|{_LENGTH}{UNIT}){JOINT})*{_LENGTH}{UNIT}"
_CLASSIFIER = r"(?:枚|个|颗|粒|处|只)"

# Nouns whose own length is given; "8 mm clip", "12 mm dominant nodule", "蒂长约1cm".
_PART_AFTER = (
    r"(?!\s*-?(?:(?:wide|long|short|thick|thin|dominant|central|deep|superficial|cold|hot|shallow|"
    r"small|large|stiff|clean|standard|hexagonal|oval|biopsy|mucosal|resection|的|中央)\s+){0,3}"
    r"(?:dominant nodule|stalk\b|pedicle|neck\b|ulcer(?!ated|ating)|erosion|depression|snare|clip|"
    r"endoclip|forceps|needle|balloon|scar|defect|margin|cuff|segment|stretch|cap\b|rim\b|polypectomy|"
    r"的?结节(?!样|状)|的?蒂|的?凹陷|的?溃疡(?![型性])|圈套|瘢痕|肠段|钛夹|创面))"
    r"(?!\s*(?:distal|proximal|away|from|above|below|beyond|past|further|deep\b|lateral\b|inside|"
    r"upstream|downstream|of (?:the )?(?:colon|mucosa|rectum|sigmoid|bowel)))"
)
_PART_BEFORE = re.compile(
    r"(?:(?:stalk|pedicle|dominant nodule|depression|ulcer(?!at)|snare|clip|forceps|needle|"
    r"margins?|tattoo|segment of|length of|distance of|stretch of|extending|extends|for|along|"
    r"蒂|结节|凹陷|溃疡|创面|圈套器|钛夹|长约|范围)"
    r"[^,;。]{0,14}|进镜.{0,8}|插镜.{0,8})$"
)
_ROMAN = {"I": 1, "II": 2, "III": 3, "IV": 4}
_CHINESE_DIGITS = {digit: value for value, digit in enumerate("零一二三四五六七八九十")} | {"两": 2}
_WORD_DIGITS = {word: value for value, word in enumerate(("zero", *_NUMBER_WORDS))}


@dataclass(frozen=True, slots=True)
class Count:
    """How many lesions: an exact number, or a lower bound (``approximate``)."""

    number: int
    approximate: bool = False


@dataclass(frozen=True, slots=True)
class Size:
    """Diameters in mm as (low, high); several when a list was given; low is None for "up to"."""

    spans: tuple[tuple[float | None, float], ...]
    factor: float


_VAGUE = re.compile(
    r"余|多|约|近|至少|大于|超过|>|≥|~|(?i:about|approx|around|least|more|over|some)"
)


def number_of(text: str) -> int:
    """Value of a numeral in digits, English words, Chinese characters or Roman letters."""
    text = text.strip()
    if text.isdigit():
        return int(text)
    if text.lower() in _WORD_DIGITS:
        return _WORD_DIGITS[text.lower()]
    if text in _ROMAN:
        return _ROMAN[text]
    if "十" in text:
        tens, _, ones = text.partition("十")
        return (_CHINESE_DIGITS.get(tens, 1)) * 10 + _CHINESE_DIGITS.get(ones, 0)
    return _CHINESE_DIGITS[text]


def _factor(unit: str) -> float:
    return 1.0 if unit.strip(" -").lower().startswith(("mm", "millimet", "毫")) else 10.0


def _value(length: str) -> float:
    return float(length) if length[0] in "0123456789." else number_of(length)


def parse_size(text: str) -> Size | None:
    """Lengths of an expression like ``0.4 cm x 0.3 cm``, ``3 mm to 1.2 cm``, ``0.3、0.5cm``.

    Products give the largest dimension, ranges both ends, lists one span each. None when the
    largest is no plausible size of a lesion (0.5 to 150 mm).
    """
    bound = re.match(rf"\s*{_BOUND}", text, re.IGNORECASE)
    factor = _factor(re.findall(UNIT, text, re.IGNORECASE)[-1])
    parts = [text] if re.search(r"between", text, re.IGNORECASE) else re.split(LIST, text)
    spans: list[tuple[float | None, float]] = []
    for part in parts:
        measures = list(
            re.finditer(rf"({NUMBER}|{_LENGTH}(?={UNIT}))({UNIT})?", part, re.IGNORECASE)
        )
        unit = factor
        values = []
        for measure in reversed(measures):
            unit = _factor(measure[2]) if measure[2] else unit
            values.append(round(_value(measure[1]) * unit, 3))
        if re.search(r"[x×*乘]|\bby\b", part, re.IGNORECASE):
            values = [max(values)]
        spans.append((min(values), max(values)))
    if bound and len(spans) == 1 and re.match(r"\s*(?:<|≤|l|u|b|at m|小|不)", text, re.IGNORECASE):
        spans = [(None, spans[0][1])]
    if not all(0.5 <= high <= 150 for _, high in spans):
        return None
    return Size(tuple(spans), factor)


class Found:
    """A match of the scanner as one pattern sees it: groups by the pattern's own names."""

    def __init__(self, match: re.Match, number: int):
        self._match, self._number = match, number
        self.string = match.string

    def __getitem__(self, group: int | str) -> Any:
        return self._match[f"{group}_{self._number}" if isinstance(group, str) else group]

    def span(self) -> tuple[int, int]:
        return self._match.span()

    def start(self) -> int:
        return self._match.start()


def _size(match: Found) -> Token | None:
    if _PART_BEFORE.search(match.string[max(0, match.start() - 30) : match.start()]):
        return Token("ignored", None, *match.span())
    size = parse_size(match[0])
    return Token("size" if size else "ignored", size, *match.span())


def _bare_size(match: Found) -> Token:
    """A size without a unit: numbers as they stand, for a unit given in the same sentence."""
    size = parse_size(match["bare"] + "mm")
    return Token("bare_size" if size else "ignored", size, *match.span())


def _distance(match: Found) -> Token:
    """Distances of a list, "30cm、20cm"; of a range, the nearer end."""
    stated = re.split(LIST, re.sub(r"[^\d.]+$", "", match[0]), flags=re.IGNORECASE)
    return Token(
        "distance", tuple(float(re.findall(NUMBER, part)[0]) for part in stated), *match.span()
    )


def _range_count(match: Found) -> Token:
    stated = re.findall(rf"(?i:{_CHINESE_NUMBER}|{_NUMBER_WORD})", match[0])
    numbers = [number_of(part) for part in stated]
    approximate = len(numbers) > 1 or bool(_VAGUE.search(match[0]))
    return Token("count", Count(numbers[0], approximate), *match.span())


def _suffix_count(match: Found) -> Token:
    return Token("suffix_count", Count(number_of(re.findall(r"\d+", match[0])[0])), *match.span())


def _label(match: Found) -> Token:
    return Token("label", match["label"].upper(), *match.span())


def _paris(match: Found) -> Token:
    code = re.sub(r"\s|-|0|[Pp][Aa][Rr][Ii][Ss]|巴黎|分型|[Tt]ype|[Cc]lass\w*|:|型", "", match[0])
    code = code.lower().replace("1", "i").replace("2", "ii").replace("ips", "isp")
    suffix = code.lstrip("i")
    return Token("code", ("paris", f"0-{'I' * (len(code) - len(suffix))}{suffix}"), *match.span())


def _yamada(match: Found) -> Token:
    roman = ("I", "II", "III", "IV")[number_of(match["yamada"]) - 1]
    return Token("code", ("yamada", roman), *match.span())


def _nice(match: Found) -> Token:
    return Token("code", ("nice", str(number_of(match["nice"]))), *match.span())


def _jnet(match: Found) -> Token:
    value = match["jnet"].upper().replace(" ", "")
    letter = value[-1] if value[-1] in "AB" else ""
    return Token("code", ("jnet", f"{number_of(value.rstrip('AB'))}{letter}"), *match.span())


_KUDO_TYPE = r"(?:III?\s?[sSlL]|3\s?[sSlL]|IV|V\s?[iI]|V\s?[nN]|III|II|I|V|[1-5])(?![A-Za-z0-9])"


def _kudo(match: Found) -> Token:
    codes = [
        code.replace(" ", "").replace("3", "III")
        for code in re.findall(_KUDO_TYPE, match["kudo"] or "")
    ]
    digits = {"1": "I", "2": "II", "III": "III", "4": "IV", "5": "V"}
    spelled = {"IIIS": "IIIs", "IIIL": "IIIL", "VI": "VI", "VN": "VN"}
    values = tuple(spelled.get(code.upper(), digits.get(code, code)) for code in codes)
    return Token("kudo", values, *match.span())


def _lst(match: Found) -> Token:
    growth, subtype = match["growth"] or "", match["subtype"] or ""
    values = ["lst"]
    if growth:
        values.append("granular" if growth == "G" else "non_granular")
    values += {"NM": ["nodular_mixed"], "M": ["nodular_mixed"], "PD": ["pseudodepressed"]}.get(
        subtype, []
    )
    return Token("lst", tuple(values), *match.span())


def _site_code(match: Found) -> Token:
    return Token("site", lexicon().site_codes[match[0]], *match.span())


def _ignored(match: Found) -> Token:
    return Token("ignored", None, *match.span())


_CLASS_WORDS = (
    r"\s*(?:(?:氏|分型|分类|类型|classification|class|type|Type|grade)\s*)*:?\s*"
    r"(?:type\s*|呈\s*|为\s*)?"
)
_PARIS_PREFIX = rf"(?:[Pp]aris|PARIS|巴黎){_CLASS_WORDS}"

# How far up the bowel: a length in centimetres, or a range of them.
_FAR = rf"{NUMBER}(?:\s?(?i:cm))?(?:{JOINT}{NUMBER})?\s?(?:(?i:cm)|厘米|公分)"
_ABOUT = r"(?:approximately|approx\.?|about|around|at least|more than|over|some|>|~)"

# In the order of precedence where two start at the same place; case matters in the codes.
_PATTERNS: tuple[tuple[str, Callable[[Found], Token | None]], ...] = (
    (
        rf"(?i:(?:at\s+|@\s*)?{_FAR}(?:{LIST}(?:at\s+)?{_FAR})*"
        r"\s*(?:from|above|proximal to|ab)\s*(?:the )?"
        r"(?:anal verge|anal margin|anal orifice|anus|dentate line|anal canal|AV\b|FAV\b))",
        _distance,
    ),
    (rf"(?i:\b{_FAR}(?:{LIST}{_FAR})*\s*(?:FAV|AV)\b)", _distance),
    (
        rf"(?i:(?:\bat|@)\s*(?:about |approximately |~)?{_FAR}(?:{LIST}(?:at\s+)?{_FAR})*"
        r"(?!\s*(?:in (?:size|diameter|length)|polyp|lesion|mass|size|long)))",
        _distance,
    ),
    (
        rf"距(?:离)?肛(?:缘|门|门缘|门口)?\s*(?:约|为|大约)?\s*(?:{_FAR}{LIST}|{NUMBER}、)*"
        rf"{_FAR}(?:处|左右)*",
        _distance,
    ),
    (rf"距(?:离)?[^\d,;。]{{1,10}}{_FAR}(?:处|左右)*", _ignored),
    (rf"[口肛]侧\s*(?:约)?{_FAR}(?:处|左右)*", _ignored),
    (
        r"(?i:(?:polyp|lesion|#|no\.|number|息肉|病变|病灶)\s?#?\s?(?P<label>\d{1,2}|[A-H])"
        r"(?![\w.+-]|\s?(?:mm|cm|x|×|-|~|枚|个|颗|处|to\b))|#\s?(?P<label2>\d{1,2})(?![\w.]))",
        lambda match: Token("label", (match["label"] or match["label2"]).upper(), *match.span()),
    ),
    (
        rf"(?:(?<![A-Za-z])|(?<=[cm]m))(?:{_PARIS_PREFIX})?(?:0\s?-\s?)?(?:I\s?sp|I\s?ps|Is|Ip|II\s?a|II\s?b|II\s?c)"
        r"(?![A-Za-z])(?!\s+(?:there|it|the|this)\b)型?",
        _paris,
    ),
    (
        rf"(?<![A-Za-z])(?:{_PARIS_PREFIX}(?:0\s?-\s?)?|0\s?-\s?)"
        r"(?i:III(?![abAB])|is(?![a-z])|ip|isp|ips|IIa|IIb|IIc|2a|2b|2c|1sp|1s|1p)(?![A-Za-z0-9])型?",
        _paris,
    ),
    (
        r"LST(?:\s?[-(]\s?(?P<growth>NG|G)(?![a-z])"
        r"(?:\s?[-(]?\s?(?P<subtype>NM|H|M|FE|F|PD)(?![a-zA-Z]))?\)?)?",
        _lst,
    ),
    (
        rf"(?:山田|[Yy]amada){_CLASS_WORDS}(?P<yamada>IV|I{{1,3}}|[1-4]|[一二三四])"
        r"(?:\s?[-~/]\s?(?:IV|I{1,3}|[1-4]))?(?![A-Za-z0-9])\s*型?",
        _yamada,
    ),
    (rf"NICE{_CLASS_WORDS}(?P<nice>[123]|I{{1,3}})(?![A-Za-z0-9])型?", _nice),
    (rf"JNET{_CLASS_WORDS}(?P<jnet>(?:2|II)\s?[AaBb]|[13]|III|I)(?![A-Za-z0-9])型?", _jnet),
    (
        r"(?:(?i:Kudo(?:'s)?|工藤|pit[- ]?patterns?|腺管开口))"
        r"(?:\s|:|\(|(?i:pit[- ]?patterns?|腺管开口|分型|分类|classification|class|types?)|"
        r"(?i:形态|呈|为|was|of|is))*"
        rf"(?P<kudo>{_KUDO_TYPE}型?"
        rf"(?:\s*(?:[-+/,、&]|and|to|or|或|和|及)\s*(?:type\s*)?{_KUDO_TYPE}型?)*)",
        _kudo,
    ),
    (r"(?i:type\s*)(?P<kudo>I{1,3}[sSlL]?|IV|V[iInN]?)(?=\s+(?i:Kudo\s+)?pit)", _kudo),
    (r"(?<![A-Za-z0-9-])(?P<kudo>III\s?[sSlL]|IV|V[iI]|V[nN])(?![A-Za-z0-9])型?", _kudo),
    (
        rf"(?i:(?<![A-Za-z0-9.#])(?:{_BOUND}\s*)?(?:between\s+)?(?:{_BARE_CHAIN}{LIST})*{_CHAIN}{_PART_AFTER})",
        _size,
    ),
    (rf"(?i:{_CHAIN})", _ignored),
    (
        rf"(?i:(?:大小|直径|径|measuring|size[d]?)[^\d,.;。]{{0,6}}(?P<bare>{NUMBER}(?:{JOINT}{NUMBER})?)"
        r"(?![\d.]|\s*(?:枚|个|颗|粒|处|块|分|年|周|岁|mm|cm|毫米|厘米|公分|millim|centim|ml|%|x|×|-|~|至|到|to\b|、|/|及|和|and\b|,\s?\d)))",
        _bare_size,
    ),
    (r"(?i:[x×]\s?\d{1,2}(?![\d.A-Za-z]|\s?(?:mm|cm)))", _suffix_count),
    (r"\(\s*(?:n\s*=\s*)?\d{1,2}\s*\)", _suffix_count),
    (r"第[一二三四五六七八九十\d]+(?:次|天|日)", _ignored),
    (
        rf"(?:约|近|至少|大于|>|≥|超过)?\s?{_CHINESE_NUMBER}"
        rf"(?:\s?[-~至、]\s?{_CHINESE_NUMBER})?(?:余|多)?\s?{_CLASSIFIER}",
        _range_count,
    ),
    (
        rf"(?i:(?:{_ABOUT}\s*)?(?<![A-Za-z0-9.#/+=-])(?:\d{{1,2}}|\b{_NUMBER_WORD}\b)"
        rf"\s?(?:-|to|~|or)\s?(?:\d{{1,2}}|{_NUMBER_WORD}\b)"
        r"(?![\d.%/+=°]|\s?(?:mm|cm|ml|min|x\b|×|millim|centim)))",
        _range_count,
    ),
    (
        rf"(?i:{_ABOUT}\s*(?:\d{{1,2}}|{_NUMBER_WORD})\b"
        r"(?![.%/+=°]\d?|\s?(?:mm|cm|ml|min|x\b|×|\*|-|~|to\b|millim|centim)))",
        _range_count,
    ),
    (r"(?<![A-Za-z0-9.#/+=-])\d{1,2}(?![\d%/+=°]|\.\d)(?=\s+[A-Za-z])", _range_count),
)


def _numbered(pattern: str, number: int) -> str:
    """The pattern with its own group names, so that several fit in one alternation."""
    return re.sub(r"\(\?P<(\w+)>", rf"(?P<\1_{number}>", pattern)


@cache
def _scanner() -> tuple[re.Pattern[str], tuple[Callable[[Found], Token | None], ...]]:
    """Made when first needed: it takes half a second, and most programs read no report."""
    codes = "|".join(sorted(lexicon().site_codes))
    patterns, readers = zip(
        *_PATTERNS, (rf"(?<![A-Za-z])(?:{codes})(?![A-Za-z])", _site_code), strict=True
    )
    # The name is an empty group at the end: a group that opens a branch hides its first character,
    # by which most branches are passed over.
    numbered = (f"(?:{_numbered(pattern, i)})(?P<p{i}>)" for i, pattern in enumerate(patterns))
    return re.compile("|".join(numbered)), readers


def quantities(text: str) -> Iterator[Token]:
    """Tokens of sizes, distances, counts, labels and codes, in reading order."""
    scanner, readers = _scanner()
    for match in scanner.finditer(text):
        number = int(match.lastgroup[1:]) if match.lastgroup else 0
        token = readers[number](Found(match, number))
        if token is not None:
            yield token
