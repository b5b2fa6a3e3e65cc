"""Draws by patient, and probes that find what is there and nothing where nothing is."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from endoclip_jax.errors import UserError
from endoclip_jax.evaluation.few_shot import draw_patients, few_shot, linear_probe


@settings(deadline=None, max_examples=50)
@given(
    st.integers(2, 30),
    st.integers(2, 30),
    st.integers(0, 20),
    st.sampled_from([0.05, 0.1, 0.2]),
    st.integers(0, 1000),
)
def test_whole_patients_and_both_classes_on_both_sides(negative, positive, mixed, fraction, seed):
    labels, patients = [], []
    for patient in range(negative + positive + mixed):
        kinds = (
            [0, 0] if patient < negative else [1] if patient < negative + positive else [0, 1, 0]
        )
        labels += kinds
        patients += [f"p{patient}"] * len(kinds)
    labels, patients = np.array(labels, bool), np.array(patients)
    order = np.random.default_rng(seed).permutation(len(labels))
    labels, patients = labels[order], patients[order]
    train = draw_patients(labels, patients, fraction=fraction, seed=seed)
    assert not set(patients[train]) & set(patients[~train])
    assert set(labels[train]) == set(labels[~train]) == {True, False}
    strata = [negative, positive, mixed]
    drawn = len(set(patients[train]))
    expected = sum(max(1, round(fraction * n)) for n in strata if n > 1)
    assert drawn == expected
    np.testing.assert_array_equal(
        train, draw_patients(labels, patients, fraction=fraction, seed=seed)
    )


def test_other_seeds_draw_other_patients():
    labels, patients = np.arange(84) < 68, np.arange(84)
    draws = {tuple(draw_patients(labels, patients, fraction=0.1, seed=s)) for s in range(20)}
    assert len(draws) == 20
    sizes = {sum(draw) for draw in draws}
    assert sizes == {9}  # 7 of 68 and 2 of 16


def test_a_separable_set_is_learnt_and_noise_is_not():
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 5 > 0
    noise = rng.normal(size=(400, 16))
    signal = noise + 3 * np.where(labels[:, None], 1, -1) * np.eye(16)[0]
    seeds = range(6)
    learnt = few_shot(signal, labels, np.arange(400), fraction=0.1, seeds=seeds)
    nothing = few_shot(noise, labels, np.arange(400), fraction=0.1, seeds=seeds)
    assert learnt.mean_sd("auroc")[0] > 0.95
    assert abs(nothing.mean_sd("auroc")[0] - 0.5) < 0.1
    assert len(learnt.auroc) == 6 and learnt.trained_on == (40,) * 6
    mean, sd = nothing.mean_sd("aupr")
    assert mean == pytest.approx(np.mean(nothing.aupr))
    assert sd == pytest.approx(np.std(nothing.aupr, ddof=1))


def test_scores_do_not_depend_on_the_length_of_the_features():
    rng = np.random.default_rng(1)
    labels = np.arange(60) % 2 == 0
    features = rng.normal(size=(60, 4)) + labels[:, None]
    scaled = features * rng.uniform(0.1, 9, size=(60, 1))
    results = [
        few_shot(f, labels, np.arange(60), fraction=0.2, seeds=[0]) for f in (features, scaled)
    ]
    assert results[0].auroc == pytest.approx(results[1].auroc)


def test_the_probe_is_the_minimum_of_its_loss():
    """Gradient of Σ log(1 + e^(−y s)) + ½‖w‖² / 10 is zero at the fitted weights."""
    rng = np.random.default_rng(2)
    features, labels = rng.normal(2.0, 5.0, size=(30, 3)), rng.random(30) < 0.5
    mean = features.mean(0)
    spread = math.sqrt(sum(float((row - mean) @ (row - mean)) for row in features) / 30)
    # Log-odds at the centre, and one spread from it along every axis.
    origin = linear_probe(features, labels, mean[None])[0]
    weights = linear_probe(features, labels, mean + spread * np.eye(3)) - origin
    centred = (features - mean) / spread
    residual = 1 / (1 + np.exp(-(centred @ weights + origin))) - labels
    np.testing.assert_allclose(centred.T @ residual + weights / 10, 0, atol=5e-3)
    assert abs(residual.sum()) < 5e-3  # nothing holds the intercept


def test_the_probe_asks_neither_where_features_lie_nor_how_far_apart():
    """Random networks put all frames close together: that is no lack of signal."""
    rng = np.random.default_rng(3)
    labels = rng.random(80) < 0.5
    features = rng.normal(size=(80, 6)) + labels[:, None]
    train = np.arange(80) < 40
    scores = [
        linear_probe(some[train], labels[train], some[~train])
        for some in (features, 100.0 + 1e-3 * features)
    ]
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-6, atol=1e-6)


def test_too_few_patients_is_a_clear_error():
    with pytest.raises(UserError, match="one class"):
        draw_patients(np.array([1, 1, 1, 0], bool), np.arange(4), fraction=0.1, seed=0)
