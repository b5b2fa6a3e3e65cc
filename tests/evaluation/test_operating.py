"""Thresholds reach the wanted specificity where they were chosen, and calls are counted right."""

from __future__ import annotations

import numpy as np
import pytest

from endoclip_jax.evaluation.operating import chosen_by_folds, chosen_elsewhere, threshold_at


@pytest.mark.parametrize("specificity", [0.5, 0.9, 0.95, 1.0])
def test_the_threshold_is_the_lowest_that_suffices(specificity):
    rng = np.random.default_rng(0)
    scores, labels = rng.integers(0, 30, 200).astype(float), rng.random(200) < 0.3
    t = threshold_at(scores, labels, specificity)
    negatives = scores[~labels]
    assert (negatives < t).mean() >= specificity
    lower = np.nextafter(t, -np.inf)
    assert (negatives < lower).mean() < specificity


def test_calls_are_counted():
    scores = np.array([0.1, 0.4, 0.6, 0.9, 0.6])
    labels = np.array([0, 1, 0, 1, 1])
    point = chosen_elsewhere(scores, labels, np.arange(5), 0.6, seed=0, draws=50)
    assert point.sensitivity.value == pytest.approx(2 / 3)
    assert point.specificity.value == pytest.approx(1 / 2)
    assert point.precision.value == pytest.approx(2 / 3)
    assert point.sensitivity.low <= 2 / 3 <= point.sensitivity.high


def test_nothing_is_called_above_an_unreachable_threshold():
    point = chosen_elsewhere(np.zeros(4), np.arange(4) % 2, np.arange(4), np.inf, seed=0, draws=20)
    assert point.sensitivity.value == 0 and point.specificity.value == 1
    assert np.isnan(point.precision.value)


def test_each_fold_is_called_by_the_others():
    """One patient's wild scores change its own calls' threshold nowhere but in other folds."""
    rng = np.random.default_rng(1)
    labels = np.arange(300) % 3 == 0
    scores = rng.normal(size=300) + 2 * labels
    patients = np.arange(300) // 3
    point = chosen_by_folds(scores, labels, patients, specificity=0.9, seed=0, draws=50)
    assert point.specificity.value == pytest.approx(0.9, abs=0.05)
    in_sample = (scores[labels] >= threshold_at(scores, labels, 0.9)).mean()
    assert point.sensitivity.value == pytest.approx(in_sample, abs=0.06)
    assert point.threshold == pytest.approx(threshold_at(scores, labels, 0.9), abs=0.2)
