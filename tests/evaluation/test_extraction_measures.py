"""Extraction measures against counts done by hand."""

from __future__ import annotations

import copy

import pytest

from endoclip_jax.evaluation.extraction import extraction_measures, is_grounded
from endoclip_jax.records.extraction import extract
from endoclip_jax.records.extraction.compare import match_items

REPORT = (
    "Findings: A 4 mm sessile polyp in the caecum. A 12 mm pedunculated red polyp in the rectum."
)


@pytest.fixture
def truth() -> dict:
    return extract(REPORT)


def test_a_perfect_reader(truth):
    empty = extract("Findings: No polyps.")
    measures = extraction_measures([truth, empty], [truth, empty], [REPORT, "Findings: No polyps."])
    assert measures["items_strict"] == measures["items_relaxed"] == 1
    assert measures["presence_sensitivity"] == measures["presence_specificity"] == 1
    assert measures["micro"] == {"precision": 1, "recall": 1, "f1": 1}
    assert measures["unit_errors"] == 0
    assert measures["grounding"] == 1
    assert measures["aspects"]["margin"]["f1"] is None


def test_items_are_matched_whatever_their_order(truth):
    shuffled = truth["polyps"][::-1]
    for guess, wanted in match_items(shuffled, truth["polyps"]):
        assert guess == wanted


def test_one_wrong_colour_and_one_missing_item(truth):
    guess = copy.deepcopy(truth)
    guess["polyps"][1]["attributes"]["colour"] = ["pale_whitish"]
    measures = extraction_measures([guess], [truth], [REPORT])
    # 1 right; the wrong pair is a false positive and a false negative.
    assert measures["items_strict"] == pytest.approx(1 / 3)
    assert measures["items_relaxed"] == 1
    assert measures["aspects"]["colour"]["f1"] == 0
    # 3 + 4 true bits, of which one is wrong on each side.
    assert measures["micro"]["precision"] == pytest.approx(6 / 7)
    del guess["polyps"][0]
    measures = extraction_measures([guess], [truth], [REPORT])
    assert measures["items_relaxed"] == pytest.approx(1 / 2)
    assert measures["micro"]["recall"] == pytest.approx(3 / 7)
    assert measures["case_type_accuracy"] == 0


def test_sizes_within_a_millimetre_and_units(truth):
    guess = copy.deepcopy(truth)
    for end in ("size_mm_min", "size_mm_max"):
        guess["polyps"][0][end] = 5
        guess["polyps"][1][end] = 120
    measures = extraction_measures([guess], [truth], [REPORT])
    assert measures["items_strict"] == 0
    assert measures["items_relaxed"] == pytest.approx(1 / 3)
    assert measures["unit_errors"] == pytest.approx(1 / 2)


def test_what_could_not_be_parsed_is_missed(truth):
    measures = extraction_measures([None, truth], [truth, truth], [REPORT, REPORT])
    assert measures["parse_rate"] == measures["presence_sensitivity"] == 1 / 2
    assert measures["items_strict"] == pytest.approx(2 / 4)


def test_grounding_folds_widths_and_blanks():
    assert is_grounded("约0.5 cm", "息肉约０．５ｃｍ")
    assert not is_grounded("约0.6cm", "息肉约0.5cm")
