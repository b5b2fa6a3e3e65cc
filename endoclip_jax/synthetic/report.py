"""Free-text reports of the embedded cohort, English and Chinese, and the truth of what they say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from endoclip_jax.synthetic import (
    phrases_en,
    phrases_zh,
    report_en,
    report_zh,
    tables,
)
from endoclip_jax.synthetic.findings import Finding, as_item, item_bits, plan_passages, renumber
from endoclip_jax.synthetic.sampling import Lesion

NEGATIVE_KINDS = {
    "normal": 0.45,
    "haemorrhoids": 0.15,
    "diverticula": 0.12,
    "scar_or_anastomosis": 0.12,
    "inflammation": 0.07,
    "melanosis": 0.03,
    "anal_papilla": 0.02,
    "submucosal_lesion": 0.015,
    "lymphoid_hyperplasia": 0.01,
    "angioectasia": 0.01,
    "pseudopolyps": 0.005,
}
_BESIDE_POLYPS = ("haemorrhoids", "haemorrhoids", "diverticula", "diverticula", "melanosis",
                  "anal_papilla", "scar_or_anastomosis")  # fmt: skip
P_BESIDE_POLYPS = 0.35
P_HEADER = 0.6
P_HISTORY = 0.2


@dataclass(frozen=True)
class Report:
    """A report and what a perfect reader would take from it."""

    text: str
    language: str
    style: str
    kind: str
    """`polyps`, or the main finding of a negative examination."""
    items: list[dict[str, Any]]
    """One per lesion or inseparable group, as the extraction schema has it (without wording), with
    `lesions` (indices after reordering) and `bits` (40 mentioned bits after normalisation)."""
    order: list[int]
    """For each lesion in order of mention, its index in the list the writer was given."""
    private: list[str]
    """Names, dates and numbers of the person that stand in the text."""


@dataclass(frozen=True)
class _Draft:
    """What the writer of either language hands over."""

    text: str
    style: str
    findings: list[Finding]
    order: list[int]
    beside: list[str]
    private: list[str]


@dataclass(frozen=True)
class _Person:
    """Invented identity of a patient and a doctor."""

    name: str
    doctor: str
    number: str
    date: str

    @property
    def private(self) -> list[str]:
        return [self.name, self.doctor, self.number, self.date]


def _pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


def _maybe(rng: np.random.Generator, chance: float, text: str) -> list[str]:
    return [text] if rng.random() < chance else []


def _truth(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    return [
        {**as_item(f), "lesions": list(f.lesions), "bits": item_bits(f).tolist()} for f in findings
    ]


def _beside(rng: np.random.Generator, positive: bool) -> list[str]:
    """Findings that are no polyps; the first names the kind of a negative examination."""
    if positive:
        return _maybe(rng, P_BESIDE_POLYPS, _pick(rng, _BESIDE_POLYPS))
    kind = str(rng.choice(list(NEGATIVE_KINDS), p=list(NEGATIVE_KINDS.values())))
    if kind == "normal":
        return []
    extra = kind != "haemorrhoids" and rng.random() < 0.2
    return [kind, "haemorrhoids"] if extra else [kind]


# --- English -----------------------------------------------------------------------------------


def _person_en(rng: np.random.Generator) -> _Person:
    month = int(rng.integers(12))
    year, day = int(rng.integers(2016, 2025)), int(rng.integers(1, 29))
    dates = (
        f"{day} {phrases_en.MONTHS[month]} {year}",
        f"{year}-{month + 1:02d}-{day:02d}",
        f"{day:02d}/{month + 1:02d}/{year}",
    )
    return _Person(
        name=f"{_pick(rng, phrases_en.FIRST_NAMES)} {_pick(rng, phrases_en.LAST_NAMES)}",
        doctor=f"{_pick(rng, phrases_en.LAST_NAMES)}",
        number=f"{int(rng.integers(10**6, 10**7))}",
        date=_pick(rng, dates),
    )


def _header_en(rng: np.random.Generator, person: _Person | None) -> list[str]:
    age = int(rng.integers(38, 82))
    lines = []
    if person:
        lines = [
            "COLONOSCOPY REPORT",
            f"Patient: {person.name}   MRN: {person.number}   Age: {age}",
            f"Date of examination: {person.date}   Endoscopist: Dr {person.doctor}",
        ]
    lines.append(f"Indication: {_pick(rng, phrases_en.INDICATIONS)}.")
    if rng.random() < P_HISTORY:
        history = _pick(rng, phrases_en.HISTORY).format(
            n=int(rng.integers(2, 5)), year=int(rng.integers(2005, 2016))
        )
        lines.append(f"History: {history}")
    technique = [
        *_maybe(rng, 0.6, _pick(rng, ("Sedation: propofol.", "Sedation: midazolam 2 mg and "
                                      "fentanyl 50 mcg.", "ASA II. Conscious sedation."))),
        *_maybe(rng, 0.7, _pick(rng, ("Bowel preparation: good (BBPS 3+2+3=8).", "BBPS 7.",
                                      "Preparation adequate, BBPS 2+2+2."))),
        _pick(rng, ("The colonoscope was advanced under direct vision to the caecum.",
                    "After informed consent and a time-out, the scope was passed to the terminal "
                    "ileum.", "Extent: caecum, ileocaecal valve photographed.")),
        *_maybe(rng, 0.7, f"Withdrawal time {int(rng.integers(6, 16))} minutes."),
    ]  # fmt: skip
    lines.append(" ".join(technique))
    return lines


def _write_en(rng: np.random.Generator, lesions: Sequence[Lesion]) -> _Draft:
    voice = report_en.Voice.sample(rng)
    passages, order = renumber(plan_passages(rng, lesions, chinese=False))
    findings = [f for p in passages for f in p.findings]
    beside = _beside(rng, bool(lesions))
    person = _person_en(rng) if rng.random() < P_HEADER else None
    others = [_pick(rng, phrases_en.OTHER[k]) for k in beside]
    if lesions:
        body = report_en.write_findings(rng, passages, voice)
        closing = [*others, *_maybe(rng, 0.8, _pick(rng, phrases_en.NORMAL))]
        diagnosis = report_en.impression(rng, findings)
    else:
        clean = phrases_en.CLEAN[:3] if beside else phrases_en.CLEAN
        body = " ".join([*_maybe(rng, 0.4, "The terminal ileum appeared normal."), *others])
        closing = [_pick(rng, clean)]
        diagnosis = [] if beside else ["Normal colonoscopy"]
    diagnosis += [phrases_en.DIAGNOSES[k] for k in beside]
    break_line = "\n" if "\n" in body else " "
    title = "FINDINGS:" if voice.style == "dictated" else "Findings:"
    after_title = "\n" if "\n" in body else " "
    lines = [
        *_header_en(rng, person),
        f"{title}{after_title}{break_line.join([x for x in (body, ' '.join(closing)) if x])}",
        f"{'IMPRESSION' if voice.style == 'dictated' else 'Impression'}: {'; '.join(diagnosis)}.",
        *_maybe(rng, 0.4, _pick(rng, ("Complications: none. Estimated blood loss: nil.",
                                      "No immediate complications."))),
        *_maybe(rng, 0.5, f"Plan: repeat colonoscopy in {_pick(rng, phrases_en.INTERVALS)}."),
    ]  # fmt: skip
    text = report_en.spelled("\n".join(lines), voice)
    private = person.private if person else []
    return _Draft(text, voice.style, findings, order, beside, private)


# --- Chinese -----------------------------------------------------------------------------------


def _person_zh(rng: np.random.Generator) -> _Person:
    year, month = int(rng.integers(2016, 2025)), int(rng.integers(1, 13))
    day = int(rng.integers(1, 29))
    return _Person(
        name=_pick(rng, phrases_zh.SURNAMES) + _pick(rng, phrases_zh.GIVEN_NAMES),
        doctor=_pick(rng, phrases_zh.SURNAMES) + _pick(rng, phrases_zh.GIVEN_NAMES),
        number=f"{_pick(rng, ('CJ', 'NJ', 'C'))}{int(rng.integers(10**6, 10**7))}",
        date=_pick(rng, (f"{year}-{month:02d}-{day:02d}", f"{year}年{month}月{day}日")),
    )


def _header_zh(rng: np.random.Generator, person: _Person | None) -> list[str]:
    lines = []
    if person:
        sex, age = _pick(rng, "男女"), int(rng.integers(35, 82))
        lines = [
            f"姓名:{person.name}  性别:{sex}  年龄:{age}岁  检查号:{person.number}",
            f"检查日期:{person.date}",
        ]
    lines += _maybe(rng, 0.5, f"临床诊断:{_pick(rng, phrases_zh.INDICATIONS)}")
    if rng.random() < P_HISTORY:
        history = _pick(rng, phrases_zh.HISTORY).format(
            n=int(rng.integers(2, 5)), year=int(rng.integers(2005, 2016))
        )
        lines.append(f"病史:{history}。")
    lines += _maybe(rng, 0.3, "麻醉方式:静脉麻醉  器械:电子结肠镜")
    return lines


def _write_zh(rng: np.random.Generator, lesions: Sequence[Lesion]) -> _Draft:
    voice = report_zh.Voice.sample(rng)
    passages, order = renumber(plan_passages(rng, lesions, chinese=True))
    findings = [f for p in passages for f in p.findings]
    beside = _beside(rng, bool(lesions))
    person = _person_zh(rng) if rng.random() < P_HEADER else None
    others = [_pick(rng, phrases_zh.OTHER[k]) + "。" for k in beside]
    opening = _pick(rng, (
        "内镜至回盲部,回盲瓣正常,阑尾开口清晰。",
        "循腔进镜至回肠末端,回肠末端黏膜未见异常。",
        f"患者取左侧卧位,进镜至盲肠,肠道准备良好(波士顿评分{int(rng.integers(6, 10))}分),"
        f"退镜时间{int(rng.integers(6, 13))}分钟。",
        "进镜80cm达回盲部,肠道清洁度尚可。",
    ))  # fmt: skip
    if lesions:
        body = report_zh.write_findings(rng, passages, voice)
        closing = _maybe(rng, 0.8, _pick(rng, phrases_zh.NORMAL) + "。")
        diagnosis = report_zh.impression(rng, findings)
    else:
        body = ""
        clean = ("余所见肠段黏膜光滑,未见息肉及新生物", "其余结直肠未见溃疡、息肉及肿物")
        closing = [_pick(rng, clean if beside else phrases_zh.CLEAN) + "。"]
        diagnosis = [] if beside else [_pick(rng, ("结直肠黏膜未见明显异常", "结肠镜检查未见异常"))]
    diagnosis += [phrases_zh.DIAGNOSES[k] for k in beside]
    gap = "\n" if "\n" in body or (voice.style == "numbered" and body) else ""
    seen = gap.join(x for x in (opening, body, "".join([*others, *closing])) if x)
    lines = [
        *_header_zh(rng, person),
        f"{_pick(rng, ('检查所见', '镜下所见', '内镜所见'))}:{seen}",
        f"{_pick(rng, ('内镜诊断', '镜下诊断'))}:{';'.join(diagnosis)}。",
        *_maybe(rng, 0.5, f"建议:{_pick(rng, phrases_zh.ADVICE)}。"),
        *([f"报告医师:{person.doctor}"] if person else []),
    ]
    text = report_zh.punctuated("\n".join(lines), voice)
    private = person.private if person else []
    return _Draft(text, voice.style, findings, order, beside, private)


def write_report(
    rng: np.random.Generator, lesions: Sequence[Lesion], language: str | None = None
) -> Report:
    """A report on an examination with these lesions (none: a negative examination).

    language: `en` or `zh`; drawn with `tables.CHINESE_SHARE` when not given.
    """
    if language is None:
        language = "zh" if rng.random() < tables.CHINESE_SHARE else "en"
    draft = {"en": _write_en, "zh": _write_zh}[language](rng, lesions)
    return Report(
        text=draft.text,
        language=language,
        style=draft.style,
        kind="polyps" if lesions else (draft.beside[0] if draft.beside else "normal"),
        items=_truth(draft.findings),
        order=draft.order,
        private=draft.private,
    )
