"""Verdicts on scores with known answers, tables as text and data, what a match rate measures."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import stats

from endoclip_jax.evaluation import paper
from endoclip_jax.evaluation.leak import (
    GROUP,
    PatientFeatures,
    match_rate,
    noise_rates,
    pairing_rates,
)
from endoclip_jax.evaluation.results import HEADLINE_COLUMNS, ZERO_SHOT
from endoclip_jax.evaluation.statistics import Pair, auroc, mean_difference_interval
from endoclip_jax.evaluation.tables import (
    Cell,
    Judged,
    Line,
    ResultTable,
    as_json,
    as_markdown,
    as_parts,
    as_text,
    json_text,
)
from endoclip_jax.evaluation.verdicts import claim_test, t_interval
from endoclip_jax.models.cross_attention import CrossAttention

AUROC = ("malignancy", "auroc", ZERO_SHOT)


def pair(rng, better, worse, patients=200, name="p"):
    """Scores whose classes stand `better` and `worse` standard deviations apart."""
    labels = np.arange(patients) % 2 == 0
    scores, other = (labels * gap + rng.standard_normal(patients) for gap in (better, worse))
    return Pair(scores, other, labels, np.asarray([f"{name}{n}" for n in range(patients)]))


def test_the_papers_numbers_agree_with_its_text_and_with_each_other():
    table, gap = paper.TABLE_1, paper.GAINS
    for name, task in (("cleansing", "detection"), ("endo_clip", "malignancy")):
        column = (task, "auroc", ZERO_SHOT)
        assert table["Endo-CLIP"][column] - table["CLIP"][column] == pytest.approx(gap[name])
    assert paper.TABLE_2[paper.FULL] == {
        column: table["Endo-CLIP"][column] for column in paper.MALIGNANCY_COLUMNS
    }
    assert table["Endo-CLIP"][AUROC] == 0.7279  # section 3.3 calls the AUPR, 92.13, an AUROC
    for model in ("Random", "ImageNet", "DINO", "SSCD"):
        assert set(HEADLINE_COLUMNS) - set(table[model]) == {
            column for column in HEADLINE_COLUMNS if column[2] == ZERO_SHOT
        }


def test_t_interval_is_that_of_the_textbook():
    values = [0.03, 0.01, 0.04, 0.015, 0.02]
    low, high = stats.t.interval(
        0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values)
    )
    interval = t_interval(values)
    assert (interval.value, interval.low, interval.high) == pytest.approx(
        (np.mean(values), low, high)
    )
    assert t_interval([0.2]).low == -math.inf


@pytest.mark.parametrize(
    "better, worse, answer",
    [(1.6, 0.6, "confirmed"), (0.6, 1.6, "refuted"), (1.0, 1.0, "undecided")],
)
def test_verdicts_on_scores_with_known_answers(better, worse, answer):
    rng = np.random.default_rng(4)
    test = claim_test("auroc", [pair(rng, better, worse) for _ in range(5)], seed=0, draws=300)
    assert test.verdict == answer, test
    assert test.difference == pytest.approx(np.mean(test.of_seeds))
    assert test.difference == pytest.approx(test.over_patients.value)


def test_one_seed_decides_nothing_however_clear():
    test = claim_test("auroc", [pair(np.random.default_rng(0), 3.0, 0.0)], seed=0, draws=100)
    assert test.over_patients.low > 0
    assert test.verdict == "undecided" and test.why == "one seed decides nothing"


def test_seeds_that_disagree_leave_it_undecided_though_the_patients_agree():
    rng = np.random.default_rng(1)
    gaps = [(2.5, 0.2), (2.5, 0.2), (2.5, 0.2), (0.2, 1.0), (0.2, 1.0)]
    pairs = [pair(rng, *gap, patients=600) for gap in gaps]
    test = claim_test("auroc", pairs, seed=0, draws=300)
    assert test.over_patients.low > 0
    assert test.verdict == "undecided" and "other seeds" in test.why


def test_few_patients_leave_it_undecided_though_the_seeds_agree():
    """Many frames of six patients, in two of whom the other model is better."""
    rng = np.random.default_rng(2)
    pairs = []
    for _ in range(5):
        patient = np.repeat(np.arange(6), 60)
        labels = np.arange(len(patient)) % 2 == 0
        gain = np.where(patient < 2, -1.0, 1.5)
        noise = rng.standard_normal((2, len(patient)))
        pairs.append(Pair(labels * (1 + gain) + noise[0], labels * 1.0 + noise[1], labels, patient))
    test = claim_test("auroc", pairs, seed=0, draws=300)
    assert test.over_seeds.low > 0
    assert test.verdict == "undecided" and "other patients" in test.why


def test_a_patient_has_the_same_weight_in_every_seed():
    """A and B swapped in the second seed cancel in every draw, unless the patients are others."""
    one = pair(np.random.default_rng(3), 1.2, 0.4, patients=60)
    swapped = Pair(one.other_scores, one.scores, one.labels, one.groups)
    interval = mean_difference_interval("auroc", [one, swapped], 0, 50)
    assert (interval.low, interval.high) == pytest.approx((0, 0), abs=1e-12)
    others = Pair(one.other_scores, one.scores, one.labels, np.char.add("x", one.groups))
    assert mean_difference_interval("auroc", [one, others], 0, 50).high > 0.01


def test_mean_difference_is_that_of_the_seeds():
    rng = np.random.default_rng(5)
    pairs = [pair(rng, 1.0, 0.5, name=name) for name in "ab"]
    by_hand = np.mean([auroc(p.scores, p.labels) - auroc(p.other_scores, p.labels) for p in pairs])
    assert mean_difference_interval("auroc", pairs, 0, 20).value == pytest.approx(by_hand)


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(6)
    test = claim_test("auroc", [pair(rng, 1.5, 0.5) for _ in range(3)], seed=0, draws=50)
    single = claim_test("auroc", [pair(rng, 1.5, 0.5)], seed=0, draws=50)
    return ResultTable(
        name="table9",
        title="Table 9",
        columns=(AUROC, ("malignancy", "auroc", "10 %")),
        lines=(
            Line("ours", {AUROC: Cell((0.70, 0.72, 0.74), 0.5, 0.7279)}, ("SP MP",)),
            Line("absent", {}, ("",), missing="no weights were given"),
        ),
        seeds=(0, 1, 2),
        mark_names=("data",),
        claims=(
            Judged("this helps", "ours", "theirs", AUROC, test, 0.2757),
            Judged("one seed", "ours", "theirs", AUROC, single),
            Judged("that helps", "ours", "absent", AUROC, None),
        ),
        paper_rows={"row 1": {AUROC: 0.4881}},
        facts={"commit": "c"},
    )


def test_table_says_mean_spread_the_papers_number_and_why_there_is_a_dash(table):
    text = as_text(table)
    ours, papers = text.splitlines()[2:4]
    assert ours.split() == ["ours", "SP", "MP", ".720", "±.020", "–"]
    assert papers.split() == ["the", "paper's", "[.7279]"]
    assert "absent: – no weights were given" in text
    assert "CONFIRMED" in text and "that helps: not measured" in text
    assert "the paper's row 1" in text and "[.4881]" in text
    assert "one seed decides nothing" in text
    for line in as_markdown(table).splitlines():
        assert not line.startswith("|") or line.count("|") == 5
    assert [row[0] for row in as_parts(table)[0].rows][-2:] == ["chance", "the paper's row 1"]


def test_json_holds_every_seed_and_nothing_that_json_does_not_know(table):
    content = json.loads(json_text(as_json(table)))
    cell = content["rows"][0]["cells"][0]
    assert cell["values"] == [0.70, 0.72, 0.74] and cell["paper"] == 0.7279
    assert cell["low"] < 0.72 < cell["high"]
    first, second, third = content["claims"]
    assert first["verdict"] == "confirmed" and len(first["test"]["of_seeds"]) == 3
    assert second["verdict"] == "undecided" and second["test"]["over_seeds"]["low"] is None
    assert third["test"] is None and content["commit"] == "c"


def test_match_rate_counts_rows_and_columns_and_no_ties():
    assert match_rate(np.eye(4)) == 1
    assert match_rate(np.zeros((4, 4))) == 0
    all_rows_two_columns = np.asarray([[1.0, 0, 0], [2, 3, 0], [0, 0, 1]])
    assert match_rate(all_rows_two_columns) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)


def test_literal_attention_reveals_pairs_of_noise_and_the_other_forms_do_not():
    """Domain README, 5 g: chance is 1/8; 60 groups of 8 patients, both ways."""
    rates = {
        mode: noise_rates(mode, dim=128, images=6, texts=3, seed=0, groups=60)["initial"]
        for mode in ("literal", "pairwise", "none")
    }
    assert rates["literal"] > 0.25
    assert rates["pairwise"] == pytest.approx(1 / GROUP, abs=0.05)
    assert rates["none"] == pytest.approx(1 / GROUP, abs=0.05)


def test_shuffled_groups_hold_no_true_pair():
    """Features that name their patient: true pairs always match, shuffled ones by chance."""
    n = 24
    v = np.eye(32, dtype=np.float32)[:n, None]
    patients = PatientFeatures(v, np.ones((n, 1), bool), v.copy(), np.ones((n, 1), bool))
    rates = pairing_rates(CrossAttention(32, "none"), {}, patients, seed=0, groups=20)
    assert rates["true"] == 1
    assert rates["shuffled"] == 0  # all cosines are zero: ties
    with pytest.raises(ValueError, match="no two groups"):
        few = patients.paired(np.arange(4), np.arange(4))
        pairing_rates(CrossAttention(32, "none"), {}, few, seed=0)
