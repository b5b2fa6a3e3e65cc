"""The rule-based reader, on sentences of our own and on the gold reports of the domain notes.

``data/own_sentences.jsonl`` has one report a row: the number of the ambiguity it is about (of the
eighteen in the domain notes, section 1.4; null for other kinds of wording) and the lesions it
holds, each as "count sites size-in-mm bits", with "-" for nothing stated. The five
``data/batch*.jsonl`` are the same without the numbers: reports in other styles, their truth written
before the reader had seen them. At first sight it read 32 of 56, 35 of 45, 24 of 36, 23 of 30 and
30 of 40 of them without a fault (29 of the last before one truth was put right); the rules then
grew by what they showed. Two of the fourth are still misread and stand in
``data/known_gaps.jsonl``, five of the fifth in ``data/misread.jsonl``.
"""

from __future__ import annotations

import json
import re
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from endoclip_jax.evaluation.extraction import extraction_measures, is_grounded
from endoclip_jax.records.attributes import BIT_NAMES, attribute_bits
from endoclip_jax.records.extraction import EXTRACTOR, extract, quantities, scan
from endoclip_jax.records.extraction.lexicon import lexicon
from endoclip_jax.records.extraction.quantities import parse_size

DATA = Path(__file__).with_name("data")
SCHEMA = json.loads(
    resources.files("endoclip_jax.records").joinpath("data/schema.json").read_text("utf-8")
)
BLOCKED = re.compile(
    r"adenoma|carcinoma|cancer|malignan|benign|hyperplastic|dysplasia|biops|snare|resect|\bEMR\b|"
    r"\bESD\b|\bclip",
    re.IGNORECASE,
)


def rows(name: str) -> list[dict]:
    return [json.loads(line) for line in (DATA / name).read_text("utf-8").splitlines()]


OWN = rows("own_sentences.jsonl")
GOLD = rows("reports_gold.jsonl")
FURTHER = [
    row
    for name in (
        "batch1_styles",
        "batch2_kinds",
        "batch3_mixed",
        "batch4_kinds",
        "batch5_dictated",
    )
    for row in rows(f"{name}.jsonl")
]
GAPS = rows("known_gaps.jsonl")
MISREAD = rows("misread.jsonl")


def summary(polyp: dict) -> str:
    low, high = polyp["size_mm_min"], polyp["size_mm_max"]
    size = "-" if high is None else f"{high:g}" if low in (None, high) else f"{low:g}-{high:g}"
    bits = attribute_bits(polyp)
    looks = sorted(name.split(".")[1] for name, bit in zip(BIT_NAMES, bits, strict=True) if bit)
    sites = ",".join(polyp["location"]) or "-"
    return " ".join([str(polyp["count"]), sites, size, *looks])


def conforms(value: object, schema: dict) -> bool:
    """The part of JSON Schema that data/schema.json uses."""
    if "$ref" in schema:
        schema = SCHEMA["$defs"][schema["$ref"].rsplit("/", 1)[1]]
    if "enum" in schema and value not in schema["enum"]:
        return False
    wanted = schema.get("type", [])
    names = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
    names |= {"integer": int, "number": (int, float)}
    kinds = [wanted] if isinstance(wanted, str) else wanted
    if kinds and not any(
        isinstance(value, names[kind])
        and not (isinstance(value, bool) and kind in ("integer", "number"))
        for kind in kinds
    ):
        return False
    if isinstance(value, dict):
        return set(value) == set(schema["required"]) and all(
            conforms(part, schema["properties"][key]) for key, part in value.items()
        )
    if isinstance(value, list):
        return all(conforms(part, schema["items"]) for part in value)
    return True


@pytest.mark.parametrize(
    "row", [*OWN, *FURTHER], ids=lambda row: f"{row.get('ambiguity')}-{row['report'][:30]}"
)
def test_own_sentences(row):
    found = extract(row["report"])
    assert [summary(polyp) for polyp in found["polyps"]] == row["lesions"]
    assert found["polyp_present"] == bool(row["lesions"])
    if "uncertain" in row:
        assert found["uncertain"] == row["uncertain"]
    if "distances" in row:
        distances = [polyp["distance_from_anal_verge_cm"] for polyp in found["polyps"]]
        assert distances == row["distances"]


@pytest.mark.parametrize("row", GAPS, ids=lambda row: row["report"][:30])
def test_what_is_misread_is_at_least_counted_right(row):
    counts = [str(polyp["count"]) for polyp in extract(row["report"])["polyps"]]
    assert counts == [lesion.split()[0] for lesion in row["lesions"]]


@pytest.mark.parametrize("row", MISREAD, ids=lambda row: row["report"][:30])
def test_what_is_miscounted_has_polyps_at_least(row):
    assert extract(row["report"])["polyp_present"]


def test_every_ambiguity_has_sentences():
    assert {row["ambiguity"] for row in OWN} == {None, *range(1, 19)}


@pytest.mark.parametrize("row", [*OWN, *FURTHER, *GOLD], ids=lambda row: row["report"][:30])
def test_output_holds_to_schema_and_report(row):
    report = row["report"]
    found = extract(report)
    assert conforms(found, SCHEMA)
    assert extract(report) == found
    assert all(sentence in report for sentence in found["diagnostic_sentences"])
    assert found["polyp_total"] in (None, sum(polyp["count"] for polyp in found["polyps"]))
    for number, polyp in enumerate(found["polyps"], 1):
        assert polyp["polyp_index"] == number
        assert polyp["evidence"]
        assert all(span in report and is_grounded(span, report) for span in polyp["evidence"])
        assert len(polyp["description"].split()) <= 40
        assert polyp["description"].isascii()
        assert not BLOCKED.search(polyp["description"])


def test_gold_reports_reach_the_gates():
    measures = extraction_measures(
        [extract(row["report"]) for row in GOLD],
        [row["gold"] for row in GOLD],
        [row["report"] for row in GOLD],
    )
    assert measures["parse_rate"] == 1
    assert measures["presence_sensitivity"] == measures["presence_specificity"] == 1
    assert measures["case_type_accuracy"] == 1
    assert measures["items_relaxed"] >= 0.95
    assert measures["items_strict"] >= 0.85
    assert measures["micro"]["f1"] >= 0.93
    assert measures["unit_errors"] == 0
    assert measures["grounding"] == 1


@pytest.mark.parametrize("row", GOLD, ids=lambda row: row["id"])
def test_gold_other_findings(row):
    assert extract(row["report"])["other_findings"] == row["gold"]["other_findings"]


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("0.6 cm", ((6, 6),)),
        ("6 x 5 mm", ((6, 6),)),
        ("0.6×0.5×0.4cm", ((6, 6),)),
        ("0.3-0.5 cm", ((3, 5),)),
        ("3 mm to 1.2 cm", ((3, 12),)),
        ("between 3 and 8 mm", ((3, 8),)),
        ("0.3、0.5cm", ((3, 3), (5, 5))),
        ("3, 4 and 11 mm", ((3, 3), (4, 4), (11, 11))),
        ("up to 8 mm", ((None, 8),)),
    ],
)
def test_sizes(text, spans):
    size = parse_size(text)
    assert size is not None
    assert size.spans == spans


@pytest.mark.parametrize("text", ["40 cm", "0.01 mm"])
def test_lengths_that_are_no_lesion(text):
    assert parse_size(text) is None


def test_impression_is_read_when_there_is_nothing_else():
    found = extract("Impression: 6 mm sessile polyp of the caecum.")
    assert [polyp["location"] for polyp in found["polyps"]] == [["cecum"]]


@pytest.mark.parametrize("report", ["", "   \n", "。。。", "12345", "|||", "Findings:", "所见:"])
def test_empty_reports_are_negative(report):
    found = extract(report)
    assert not found["polyp_present"]
    assert conforms(found, SCHEMA)


def test_language():
    assert extract("Normal colon.")["language"] == "en"
    assert extract("全结肠未见异常,NBI及JNET。")["language"] == "zh"
    assert extract("123")["language"] == "other"


def test_long_descriptions_keep_to_the_limit():
    found = extract(
        "Findings: A 35 mm LST-G-NM in the sigmoid colon with a lobulated, villous, rough and red "
        "surface, ill-defined irregular margin, Kudo IV and VI, JNET 2B, ulcerated, friable, "
        "with a mucus cap, firm, with central depression, fold convergence and stenosis."
    )
    assert len(found["polyps"]) == 1
    assert len(found["polyps"][0]["description"].split()) <= 40


def test_extractor_names_itself():
    assert EXTRACTOR["name"] == "rules"
    assert EXTRACTOR["version"]


PIECES = (
    "0.5cm", "3 mm", ".4 cm", "x", "、", "to", "two", "Eight millimetres", "一厘米", "十二", "~",
    "about", "Is", "0-IIa", "NICE 2", "Kudo type IIIs", "polyp #2", "(2)", "3枚", "2-3", "at 20 cm",
    "from the anal verge", "and", ",", ".", "。", "距肛门", "大小约", "≥", "IV", "twenty", "SIX cm",
    "same as the surrounding mucosa", "横、降结肠", "2 years ago", "grade 2", "LST-G", "AC", "BBPS",
    "无异常隆起", "5 minutes", "3/4", "in 2019", "not retrieved", "颜色与周围黏膜相同", "2枚钛夹",
)  # fmt: skip


def test_the_scanners_find_what_their_patterns_find_one_by_one():
    """The scanners are one pattern each, ordered for speed; here every pattern is tried alone."""
    rng = np.random.default_rng(0)
    texts = [rng.choice(["", " "]).join(rng.choice(PIECES, 12)) for _ in range(150)]
    codes = "|".join(sorted(lexicon().site_codes))
    plain = [pattern.replace(quantities._BEGINS, "") for pattern, _ in quantities._PATTERNS]
    plain.append(rf"(?<![A-Za-z])(?:{codes})(?![A-Za-z])")
    for scanner, patterns, flags in (
        (quantities._scanner()[0], plain, 0),
        (scan._patterns()[0], [pattern for pattern, _ in lexicon().patterns], re.IGNORECASE),
    ):
        alone = [re.compile(pattern, flags) for pattern in patterns]
        seen = set()
        for text in texts:
            found = [(int(m.lastgroup[1:]), *m.span()) for m in scanner.finditer(text)]
            assert found == list(first_matches(alone, text)), text
            seen |= {number for number, _, _ in found}
        assert len(seen) > 5


def first_matches(patterns, text):
    """(number, start, end) of what matches at each place, the first pattern first."""
    place = 0
    while place < len(text):
        for number, pattern in enumerate(patterns):
            match = pattern.match(text, place)
            if match and match.end() > place:
                yield number, place, match.end()
                place = match.end()
                break
        else:
            place += 1
