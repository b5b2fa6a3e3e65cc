"""Calibration against loops and a known truth; no patient is recalibrated by itself."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from endoclip_jax.errors import UserError
from endoclip_jax.evaluation.calibration import (
    calibration,
    fit_logistic,
    recalibrated,
    reliability,
    sigmoid,
)


@pytest.fixture(scope="module")
def sample():
    rng = np.random.default_rng(0)
    score = rng.normal(size=2000)
    labels = rng.random(2000) < 1 / (1 + np.exp(-(0.5 * score - 1.5)))
    return 7 * score, labels, np.arange(2000) // 4  # overconfident and off by an offset


def test_error_and_brier_by_loops(sample):
    scores, labels, patients = sample
    p = sigmoid(scores)
    found = calibration(p, labels, patients, seed=0, draws=50)
    order = np.argsort(p)
    error = sum(abs(labels[part].mean() - p[part].mean()) for part in np.split(order, 10)) / 10
    assert found.ece == pytest.approx(error, abs=2e-3)  # bins may differ by one sample
    assert found.brier.value == pytest.approx(np.mean((p - labels) ** 2))
    assert found.brier.low < found.brier.value < found.brier.high
    assert found.curve.count.sum() == 2000 and len(found.curve.count) == 10


def test_equal_probabilities_share_a_bin():
    p = np.array([0.2] * 8 + [0.9] * 2)
    curve = reliability(p, np.arange(10) < 3)
    np.testing.assert_allclose(curve.predicted, [0.2, 0.9])
    np.testing.assert_allclose(curve.observed, [3 / 8, 0])
    np.testing.assert_array_equal(curve.count, [8, 2])


def test_two_numbers_find_the_truth_and_one_number_only_the_scale(sample):
    scores, labels, patients = sample
    errors = {
        name: calibration(p, labels, patients, seed=0, draws=20).ece
        for name, p in {
            "as it is": sigmoid(scores),
            "temperature": recalibrated(scores, labels, patients, offset=False, seed=0),
            "Platt": recalibrated(scores, labels, patients, offset=True, seed=0),
        }.items()
    }
    assert errors["Platt"] < 0.04 < errors["temperature"] < errors["as it is"]
    slope, intercept = fit_logistic(scores, labels, offset=True)
    assert slope == pytest.approx(0.5 / 7, rel=0.2) and intercept == pytest.approx(-1.5, abs=0.2)


@pytest.mark.parametrize("offset", [True, False])
def test_the_fit_is_the_minimum_that_a_general_optimiser_finds(offset):
    rng = np.random.default_rng(1)
    scores = rng.normal(size=60) * 0.03
    labels = scores + 0.02 * rng.normal(size=60) > 0.01
    n, m = labels.sum(), (~labels).sum()
    target = np.where(labels, (n + 1) / (n + 2), 1 / (m + 2))

    def loss(w):
        z = w[0] * scores * 30 + w[1] * offset
        return np.sum(np.logaddexp(0, z) - target * z)

    best = minimize(loss, [0.0, 0.0], tol=1e-12).x
    slope, intercept = fit_logistic(scores, labels, offset=offset)
    assert slope == pytest.approx(30 * best[0], rel=1e-3)
    assert intercept == pytest.approx(best[1] * offset, abs=1e-3)


def test_separated_classes_stay_finite():
    slope, intercept = fit_logistic(np.array([0.0, 0.1, 5.0, 5.1]), np.arange(4) > 1, offset=True)
    assert np.isfinite([slope, intercept]).all() and slope > 0


def test_a_patients_own_labels_do_not_move_its_probabilities(sample):
    scores, labels, patients = (x[:400] for x in sample)
    before = recalibrated(scores, labels, patients, offset=True, seed=3)
    sums = np.bincount(patients, weights=labels)
    one = patients == np.flatnonzero((sums > 0) & (sums < 4))[0]  # a patient of both classes
    changed = labels.copy()
    changed[one] = ~labels[one]  # still one of both, so that the folds stay
    after = recalibrated(scores, changed, patients, offset=True, seed=3)
    np.testing.assert_allclose(before[one], after[one])


def test_too_few_patients_is_a_clear_error():
    with pytest.raises(UserError, match="cannot all hold both classes"):
        recalibrated(np.arange(6.0), np.arange(6) > 3, np.arange(6), offset=True, seed=0)
