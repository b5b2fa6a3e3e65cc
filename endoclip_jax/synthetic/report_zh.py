"""Chinese reports: puts passages into sentences, and sentences into the sections of a report."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from endoclip_jax.synthetic import phrases_zh as words
from endoclip_jax.synthetic.findings import Finding, Passage

STYLES = ("paragraph", "segments", "numbered")
_STYLE_SHARES = (0.60, 0.22, 0.18)
_COUNT = {1: ("一枚", "1枚"), 2: ("两枚", "2枚"), 3: ("三枚", "3枚")}
_FULL_WIDTH = str.maketrans({sign: chr(ord(sign) + 0xFEE0) for sign in ",;:()~"})
_ROMAN = {"I": "Ⅰ", "II": "Ⅱ", "III": "Ⅲ", "IV": "Ⅳ"}


@dataclass(frozen=True)
class Voice:
    """The habits of one doctor: unit, punctuation, numerals, layout."""

    unit: str
    full_width: bool
    roman_signs: bool
    style: str

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Voice:
        return cls(
            unit=str(rng.choice(["cm", "mm", "厘米", "毫米"], p=[0.78, 0.12, 0.07, 0.03])),
            full_width=bool(rng.random() < 0.6),
            roman_signs=bool(rng.random() < 0.3),
            style=str(rng.choice(STYLES, p=_STYLE_SHARES)),
        )


def _pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


def _number(mm: int, unit: str) -> str:
    return f"{mm}" if unit in ("mm", "毫米") else f"{mm / 10:.1f}"


def _measure(rng: np.random.Generator, low: int, high: int, unit: str) -> str:
    """A size as written: `0.7cm`, `0.7×0.5cm`, `0.7cm*0.5cm`, `0.6-0.7cm`."""
    if low < high:
        return f"{_number(low, unit)}{_pick(rng, '--~')}{_number(high, unit)}{unit}"
    if high >= 4 and rng.random() < 0.3:
        other = _number(max(1, round(high * rng.uniform(0.6, 0.95))), unit)
        pattern = _pick(rng, ("{0}×{1}{2}", "{0}×{1}{2}", "{0}{2}×{1}{2}", "{0}{2}*{1}{2}"))
        return pattern.format(_number(high, unit), other, unit)
    return f"{_number(high, unit)}{unit}"


def _size(rng: np.random.Generator, f: Finding, unit: str) -> str:
    assert f.size_mm
    frame = _pick(rng, ("大小约{}", "直径约{}", "约{}", "大小约为{}"))
    return frame.format(_measure(rng, *f.size_mm, unit))


def _code(rng: np.random.Generator, form: str, voice: Voice) -> str:
    if voice.roman_signs:
        form = form.replace("II", "Ⅱ").replace("I", "Ⅰ")
    return _pick(rng, ("0-{}型", "{}型", "Paris {}型", "巴黎分型0-{}型")).format(form)


def _noun(rng: np.random.Generator, f: Finding, voice: Voice) -> str:
    """`Is型息肉`, `亚蒂息肉`, `息肉(山田Ⅲ型)`, `LST-G-M`."""
    if f.lst:
        return _pick(rng, words.LST_NAMES[f.lst])
    if f.form == "mass":
        return _pick(rng, words.MASS_NOUNS)
    noun = "病变" if f.form in ("IIb", "IIc", "IIa+IIc") else "息肉"
    if f.form is None:
        return noun
    if f.notation == "yamada":
        assert f.yamada
        numeral = _ROMAN[f.yamada] if voice.roman_signs else f.yamada
        return _pick(rng, ("山田{}型息肉", "息肉(山田{}型)")).format(numeral)
    if f.notation == "paris":
        return f"{_code(rng, f.form, voice)}{noun}"
    named = f"{_pick(rng, words.FORM_WORDS[f.form])}{noun}"
    return named if f.notation == "words" else f"{named}({_code(rng, f.form, voice)})"


def _place(rng: np.random.Generator, f: Finding) -> str:
    if not f.locations:
        return "结肠"
    site = _pick(rng, words.SITES[f.locations[0]])
    if f.distance_cm is None:
        return site
    frames = ("距肛缘{0}cm{1}", "距肛门约{0}cm{1}", "{1}(距肛缘{0}cm)", "{1}距肛缘约{0}cm处")
    frame = _pick(rng, frames)
    return frame.format(f.distance_cm, site)


def _micro(rng: np.random.Generator, f: Finding) -> str:
    assert f.micro
    system, code = f.micro
    if system == "words":
        return _pick(rng, words.MICRO_WORDS[code])
    if system == "kudo":
        return _pick(rng, ("腺管开口呈{}型", "pit pattern {}型", "Kudo分型{}型")).format(code)
    return _pick(rng, ("NBI下{}{}型", "{} {}型", "{}分型{}型")).format(system.upper(), code)


def _surface(rng: np.random.Generator, f: Finding) -> str:
    said = [_pick(rng, words.SURFACE[v]) for v in f.surface]
    if len(said) == 1:
        return f"表面{said[0]}"
    return "表面" + "、".join(f"部分{s}" for s in said)


def _appearance(rng: np.random.Generator, f: Finding) -> list[str]:
    parts = []
    if f.surface:
        parts.append(_surface(rng, f))
    if f.colour:
        parts.append(_pick(rng, words.COLOUR[f.colour[0]]))
    if f.margin:
        parts.append(_pick(rng, words.MARGIN[f.margin]))
    parts.extend(_pick(rng, words.SECONDARY[v]) for v in f.secondary)
    if f.absent:
        denied = "及".join(_pick(rng, words.ABSENT[v]) for v in f.absent)
        parts.append(_pick(rng, ("无{}", "未见{}", "无明显{}")).format(denied))
    if f.micro:
        parts.append(_micro(rng, f))
    return parts


def _treatment(rng: np.random.Generator, f: Finding, *, plural: bool = False) -> list[str]:
    if not f.treatment:
        return []
    done = _pick(rng, words.TREATMENT[f.treatment[0]]).format(
        ml=int(rng.integers(3, 12)), n=int(rng.integers(2, 6))
    )
    parts = [("均" if plural else "") + done]
    if "clip" in f.treatment:
        parts.append(_pick(rng, words.CLIP).format(n=int(rng.integers(2, 5))))
    return parts


def _alone(rng: np.random.Generator, f: Finding, voice: Voice, *, place: bool = True) -> str:
    count = _pick(rng, ("一", "一枚", "1枚", "单发", "一个"))
    if f.lst or f.form == "mass":
        count = _pick(rng, ("一", "一处"))
    size_word = _pick(rng, words.SIZE_WORDS[f.size_word]) if f.size_word else ""
    size = [_size(rng, f, voice.unit)] if f.size_mm else []
    noun = f"{size_word}{_noun(rng, f, voice)}"
    where = _place(rng, f) if place else ""
    if not place and f.distance_cm is not None:
        where = f"距肛缘{f.distance_cm}cm"
    if size and rng.random() < 0.2 and not f.lst:
        opening = f"{where}见{count}{size.pop()}{noun}"
    else:
        opening = f"{where}{_pick(rng, ('见', '可见', '见有'))}{count}{noun}"
    return ",".join([opening, *size, *_appearance(rng, f), *_treatment(rng, f)]) + "。"


def _joint(rng: np.random.Generator, passage: Passage, voice: Voice) -> str:
    """`升结肠、直肠各见一枚Is型息肉,约0.3-0.5cm`, and its kin."""
    findings = passage.findings
    f = findings[0]
    noun = _noun(rng, f, voice)
    shared = [_surface(rng, f)] if f.surface else []
    sites = [_pick(rng, words.SITES[x.locations[0]]) for x in findings]
    sizes = [_number(x.size_mm[1], voice.unit) + voice.unit for x in findings if x.size_mm]
    if passage.kind == "listed":
        count = _pick(rng, _COUNT[len(findings)])
        measured = f"大小均约{sizes[0]}" if len(set(sizes)) == 1 else "大小约" + "、".join(sizes)
        parts = [f"{sites[0]}见{count}{noun}", measured]
        shared += _largest(rng, findings)
    elif passage.kind == "paired":
        one = _pick(rng, _COUNT[1])
        pairs = [f"{p}见{one}直径约{s}" for p, s in zip(sites, sizes, strict=True)]
        parts = ["、".join(pairs) + noun]
        if shared:
            shared = ["表面均" + shared[0].removeprefix("表面")]
    else:
        parts = [f"{'、'.join(sites)}各见{_pick(rng, _COUNT[1])}{noun}", _size(rng, f, voice.unit)]
    return ",".join([*parts, *shared, *_treatment(rng, f, plural=True)]) + "。"


def _largest(rng: np.random.Generator, findings: Sequence[Finding]) -> list[str]:
    """What is said of the largest alone: `较大者色泽发红,NICE 2型`."""
    f = max(findings, key=lambda x: x.size_mm or (0, 0))
    parts = [_pick(rng, words.COLOUR[f.colour[0]])] if f.colour else []
    parts += [_micro(rng, f)] if f.micro else []
    subject = "较大者" if len(findings) == 2 else "最大者"
    return [subject + parts[0], *parts[1:]] if parts else []


def _cluster(rng: np.random.Generator, f: Finding, voice: Voice) -> str:
    """`横结肠、乙状结肠可见约4-5枚广基息肉,约0.3-0.8cm`."""
    number = f"{f.count}-{f.count + 1}枚"
    sites = "、".join(_pick(rng, words.SITES[x]) for x in f.locations)
    frame = _pick(rng, ("{0}散在约{1}{2}", "{0}见多发{2}约{1}", "{0}可见约{1}{2}"))
    parts = [frame.format(sites, number, _noun(rng, f, voice))]
    if f.size_mm:
        parts.append(_size(rng, f, voice.unit))
    if f.surface:
        parts.append(_surface(rng, f))
    return ",".join([*parts, *_treatment(rng, f, plural=True)]) + "。"


def _passage(rng: np.random.Generator, p: Passage, voice: Voice) -> str:
    if p.kind == "alone":
        return _alone(rng, p.findings[0], voice)
    if p.kind == "cluster":
        return _cluster(rng, p.findings[0], voice)
    return _joint(rng, p, voice)


def _segments(rng: np.random.Generator, passages: Sequence[Passage], voice: Voice) -> str:
    """One line a bowel segment, empty segments included."""
    lines = []
    by_site: dict[str, list[Finding]] = {}
    for f in (f for p in passages for f in p.findings):
        by_site.setdefault(f.locations[0], []).append(f)
    for site, names in words.SITES.items():
        name = _pick(rng, names)
        if site not in by_site:
            if rng.random() < 0.6:
                normal = ("黏膜光滑,血管纹理清晰。", "未见异常。", "黏膜未见明显异常。")
                lines.append(f"{name}:{_pick(rng, normal)}")
            continue
        said = "".join(_alone(rng, f, voice, place=False) for f in by_site[site])
        lines.append(f"{name}:{said}")
    return "\n".join(lines)


def write_findings(rng: np.random.Generator, passages: Sequence[Passage], voice: Voice) -> str:
    """The lesions' part of the findings section in the voice's layout."""
    placed = all(p.kind != "cluster" and all(f.locations for f in p.findings) for p in passages)
    if voice.style == "segments" and placed:
        return _segments(rng, passages, voice)
    said = [_passage(rng, p, voice) for p in passages]
    if voice.style == "numbered" and len(said) > 1:
        return "\n".join(f"{i}、{text}" for i, text in enumerate(said, 1))
    return "".join(said)


def impression(rng: np.random.Generator, findings: Sequence[Finding]) -> list[str]:
    """The closing phrases on the lesions; nothing that the findings do not say."""
    said = []
    plain = [f for f in findings if f.form != "mass" and not f.lst]
    for f in findings:
        organ = words.SITES[f.locations[0]][0] if f.locations else "结肠"
        if f.form == "mass":
            said.append(f"{organ}肿物,性质待病理")
        elif f.lst:
            said.append(f"{organ}侧向发育型病变")
    if sum(f.count for f in plain) > 1:
        said.append(_pick(rng, ("结肠多发息肉", "结直肠多发息肉", "结肠多发息肉(已切除)")))
    elif plain:
        organ = words.SITES[plain[0].locations[0]][0] if plain[0].locations else "结肠"
        said.append(_pick(rng, ("{}息肉", "{}息肉(已处理)")).format(organ))
    return said


def punctuated(text: str, voice: Voice) -> str:
    """The text in the voice's punctuation, codes set apart from units."""
    text = re.sub(r"(?<=[cm]m)(?=[0-9A-Z])", " ", text)
    if voice.full_width:
        return text.translate(_FULL_WIDTH)
    return text
