"""Selection quality against a loop over frames."""

from __future__ import annotations

import numpy as np
import pytest

from endoclip_jax.evaluation.frame_selection import rule_quality, selection_quality


def test_quality_by_hand():
    #           patient 0        patient 1      patient 2
    records = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2, 2])
    truth = np.array([0, -1, -1, -2, 1, 0, -1, -1, -1, -1])
    kept = np.array([1, 1, 0, 1, 0, 0, 1, 0, 1, 0], bool)
    quality = selection_quality(kept, records, truth, seed=0)
    assert quality.precision.value == pytest.approx(1 / 4)  # the unknown frame is no miss
    assert quality.recall.value == pytest.approx(1 / 3)
    assert quality.prevalence == pytest.approx(3 / 9)
    assert quality.lift == pytest.approx(0.75)
    assert (quality.kept, quality.frames, quality.unknown, quality.patients) == (5, 10, 1, 3)
    assert quality.without_polyp_frame == pytest.approx(1 / 2)  # patient 1 of the two with polyps


def test_nothing_known_is_nan_and_no_crash():
    quality = selection_quality(np.ones(3, bool), np.zeros(3, int), np.full(3, -2), seed=0)
    assert np.isnan([quality.precision.value, quality.prevalence, quality.lift]).all()
    assert quality.unknown == 3


def test_perfect_scores_through_the_rule():
    rng = np.random.default_rng(0)
    records = np.repeat(np.arange(40), 12)
    truth = np.where(np.arange(480) % 12 < 3, 0, -1)
    good, kept = rule_quality(truth + 0.1 * rng.random(480), records, truth, rho=0.21, seed=0)
    assert kept.sum() == 40 * 3 == good.kept  # ceil(0.21 · 12) = 3
    assert good.precision.value == good.recall.value == 1
    assert good.without_polyp_frame == 0
    assert good.lift == pytest.approx(4)
    chance, _ = rule_quality(rng.random(480), records, truth, rho=0.21, seed=0)
    assert chance.precision.low < 0.25 < chance.precision.high


def test_pooled_rule_may_leave_a_patient_empty():
    records = np.repeat([0, 1], 10)
    truth = np.zeros(20, int)
    scores = np.r_[np.arange(10) + 100.0, np.arange(10)]
    _, kept = rule_quality(scores, records, truth, rho=0.3, rule="pooled", seed=0)
    assert kept[:10].sum() == 6 and not kept[10:].any()
