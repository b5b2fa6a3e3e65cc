"""Attention against truth: weights put where they belong, elsewhere, or nowhere in particular."""

from __future__ import annotations

import numpy as np
import pytest

from endoclip_jax.evaluation.attention_truth import attended, attention_quality

ITEMS = np.array([0, 0, 1, -1, -1, -2])


def test_weights_on_the_own_polyps_frames_are_right():
    weights = np.array([[0.4, 0.3, 0.1, 0.1, 0.1, 0.0], [0.0, 0.1, 0.5, 0.2, 0.1, 0.1]])
    everything = attended(weights, ITEMS, among_polyps=False)
    assert [a.auroc for a in everything] == [1.0, 1.0]
    assert [a.peak for a in everything] == [1.0, 1.0]
    assert [a.chance for a in everything] == [2 / 5, 1 / 5]  # the unknown frame is left out
    polyps = attended(weights, ITEMS, among_polyps=True)
    assert [a.chance for a in polyps] == [2 / 3, 1 / 3]


def test_a_polyp_but_the_wrong_one():
    """Attention that finds polyps without telling them apart: good among all, chance among them."""
    weights = np.array([[0.3, 0.3, 0.3, 0.05, 0.05, 0]] * 2)
    everything = attended(weights, ITEMS, among_polyps=False)
    assert everything[0].auroc == pytest.approx((2 * 2 + 2 * 0.5) / 6)
    assert everything[0].peak == pytest.approx(2 / 3)  # of three equal peaks two are right
    assert [a.auroc for a in attended(weights, ITEMS, among_polyps=True)] == [0.5, 0.5]


def test_descriptions_without_a_frame_of_their_own_are_not_judged():
    weights = np.full((3, 6), 1 / 6)
    assert len(attended(weights, ITEMS, among_polyps=True)) == 2
    assert attended(weights, np.zeros(6, int), among_polyps=True) == []


def test_mean_resamples_patients():
    weights = np.array([[0.4, 0.3, 0.1, 0.1, 0.1, 0.0], [0.5, 0.1, 0.0, 0.2, 0.1, 0.1]])
    found = attended(weights, ITEMS, among_polyps=False)
    quality = attention_quality(found * 4, np.repeat(np.arange(4), 2), seed=0, draws=50)
    assert quality.descriptions == 8
    assert quality.auroc.value == pytest.approx(np.mean([1.0, 0.0]))
    assert quality.auroc.low == quality.auroc.high  # each patient has one of each
    assert quality.peak_chance == pytest.approx(np.mean([2 / 5, 1 / 5]))
