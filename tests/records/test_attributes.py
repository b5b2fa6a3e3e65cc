"""The normaliser: every row of the table in the domain notes, its precedence and closures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from endoclip_jax.records.attributes import (
    ASPECTS,
    BIT_NAMES,
    NUM_BITS,
    aspect_slice,
    attribute_bits,
    bit_values,
    case_type,
    contradictions,
    size_class,
    union_bits,
)

GOLD = [
    json.loads(line)
    for line in (Path(__file__).parent / "data" / "reports_gold.jsonl")
    .read_text("utf-8")
    .splitlines()
]


def polyp(count: int = 1, size: tuple | None = None, words: dict | None = None, **codes) -> dict:
    low, high = size or (None, None)
    return {
        "count": count,
        "size_mm_min": low,
        "size_mm_max": high,
        "attributes": words or {},
        **codes,
    }


def looks(item: dict) -> set[str]:
    bits = attribute_bits(item)
    assert bits.dtype == np.uint8
    assert bits.shape == (NUM_BITS,)
    return {name.split(".")[1] for name, bit in zip(BIT_NAMES, bits, strict=True) if bit}


def test_vocabulary():
    assert NUM_BITS == 40
    assert len(ASPECTS) == 9
    covered = [BIT_NAMES[aspect_slice(aspect)] for aspect, _ in ASPECTS]
    assert [name for block in covered for name in block] == list(BIT_NAMES)
    assert BIT_NAMES[aspect_slice("attachment")][0] == "attachment.pedunculated"
    with pytest.raises(KeyError):
        aspect_slice("flavour")


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ({"paris": ["0-Ip"]}, "protruded pedunculated"),
        ({"paris": ["0-Isp"]}, "protruded subpedunculated"),
        ({"paris": ["0-Is"]}, "protruded sessile"),
        ({"paris": ["0-IIa"]}, "flat_elevated"),
        ({"paris": ["0-IIb"]}, "flat"),
        ({"paris": ["0-IIc"]}, "depressed"),
        ({"paris": ["0-III"]}, "depressed ulcer_erosion"),
        ({"paris": ["0-IIa", "0-IIc"]}, "flat_elevated depressed"),
        ({"yamada": "I"}, "protruded sessile"),
        ({"yamada": "II"}, "protruded sessile"),
        ({"yamada": "III"}, "protruded subpedunculated"),
        ({"yamada": "IV"}, "protruded pedunculated"),
        ({"nice": "1"}, "nonneoplastic_pattern"),
        ({"nice": "2"}, "regular_neoplastic_pattern"),
        ({"nice": "3"}, "invasive_pattern"),
        ({"jnet": "1"}, "nonneoplastic_pattern"),
        ({"jnet": "2A"}, "regular_neoplastic_pattern"),
        ({"jnet": "2B"}, "irregular_pattern"),
        ({"jnet": "3"}, "invasive_pattern"),
        ({"kudo": ["I"]}, "nonneoplastic_pattern"),
        ({"kudo": ["II"]}, "nonneoplastic_pattern"),
        ({"kudo": ["IIIs"]}, "regular_neoplastic_pattern"),
        ({"kudo": ["IIIL"]}, "regular_neoplastic_pattern"),
        ({"kudo": ["IV", "VI"]}, "regular_neoplastic_pattern irregular_pattern"),
        ({"kudo": ["VN"]}, "invasive_pattern"),
    ],
)
def test_codes(codes, expected):
    assert looks(polyp(**codes)) == set(expected.split())


@pytest.mark.parametrize(
    ("growth", "expected"),
    [
        (["lst"], "lst flat_elevated"),
        (["lst", "granular"], "lst flat_elevated granular"),
        (["granular"], "lst flat_elevated granular"),
        (["lst", "nodular_mixed"], "lst flat_elevated granular nodular_mixed protruded"),
        (["lst", "non_granular"], "lst flat_elevated non_granular"),
        (["pseudodepressed"], "lst flat_elevated non_granular pseudodepressed depressed"),
    ],
)
def test_laterally_spreading_lesions_close(growth, expected):
    assert looks(polyp(words={"lst_growth": growth})) == set(expected.split())


@pytest.mark.parametrize(
    ("millimetres", "name"),
    [
        (0.5, "diminutive_le5mm"),
        (5, "diminutive_le5mm"),
        (5.1, "small_6_9mm"),
        (9.9, "small_6_9mm"),
        (10, "large_10_19mm"),
        (19.9, "large_10_19mm"),
        (20, "giant_ge20mm"),
    ],
)
def test_size_classes(millimetres, name):
    assert size_class(millimetres) == name
    assert looks(polyp(size=(millimetres, millimetres))) == {name}


def test_a_range_is_its_upper_end_on_one_lesion_and_every_class_on_a_group():
    assert looks(polyp(size=(4, 12))) == {"large_10_19mm"}
    group = looks(polyp(count=3, size=(4, 12)))
    assert group == {"diminutive_le5mm", "small_6_9mm", "large_10_19mm"}
    assert looks(polyp(count=3, size=(None, 8))) == {"small_6_9mm"}


def test_a_number_beats_a_size_word():
    words = {"size_class": ["giant_ge20mm"]}
    assert looks(polyp(size=(3, 3), words=words)) == {"diminutive_le5mm"}
    assert looks(polyp(words=words)) == {"giant_ge20mm"}


def test_a_code_beats_a_word():
    flat = {"gross_form": ["flat"], "attachment": ["sessile"]}
    assert looks(polyp(words=flat, paris=["0-IIa"])) == {"flat_elevated"}
    pattern = {"microstructure": ["invasive_pattern"]}
    assert looks(polyp(words=pattern, nice="1")) == {"nonneoplastic_pattern"}
    assert looks(polyp(yamada="IV", paris=["0-Is"])) == {"protruded", "sessile"}


def test_words_bring_their_form_and_a_mass_has_no_base():
    assert looks(polyp(words={"attachment": ["pedunculated"]})) == {"protruded", "pedunculated"}
    mass = {"gross_form": ["mass", "protruded"], "attachment": ["sessile"]}
    assert looks(polyp(words=mass)) == {"mass"}


def test_contradictions_leave_the_block_empty_and_are_reported():
    both = {"attachment": ["pedunculated", "sessile"], "margin": ["clear", "indistinct"]}
    item = polyp(words=both)
    assert looks(item) == {"protruded"}
    assert contradictions(item) == ("attachment", "margin")
    group = polyp(count=2, words=both)
    assert contradictions(group) == ()
    assert {"pedunculated", "sessile", "clear", "indistinct"} <= looks(group)
    assert contradictions(polyp(paris=["0-Is", "0-Ip"])) == ("attachment",)
    assert contradictions(polyp(words={"lst_growth": ["granular", "non_granular"]})) == (
        "lst_growth",
    )


def test_unknown_values_are_refused():
    with pytest.raises(ValueError, match="0-Iq"):
        attribute_bits(polyp(paris=["0-Iq"]))
    with pytest.raises(ValueError, match="shiny"):
        attribute_bits(polyp(words={"surface": ["shiny"]}))


def test_nothing_stated_is_no_bit():
    assert not attribute_bits(polyp()).any()
    assert not union_bits([]).any()


@pytest.mark.parametrize("row", GOLD, ids=lambda row: row["id"])
def test_gold_vectors(row):
    polyps = row["gold"]["polyps"]
    vectors = [attribute_bits(item) for item in polyps]
    assert [vector.tolist() for vector in vectors] == row["derived"]["vectors"]
    assert union_bits(vectors).tolist() == row["derived"]["union"]
    assert case_type(polyps) == row["derived"]["case_type"]
    for vector, names in zip(vectors, row["derived"]["bits"], strict=True):
        values = bit_values(vector)
        assert [f"{a}.{v}" for a, _ in ASPECTS for v in values[a]] == names


def test_case_type_sums_counts():
    assert case_type([]) == "negative"
    assert case_type([{"count": 1}]) == "single"
    assert case_type([{"count": 2}]) == "multi"
    assert case_type([{"count": 1}, {"count": 1}]) == "multi"
