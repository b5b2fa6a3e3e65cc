"""Metrics against an O(n²) loop and scikit-learn; intervals against draws made one at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from endoclip_jax.errors import UserError
from endoclip_jax.evaluation import statistics


def auroc_by_pairs(scores, labels):
    wins = 0.0
    for i in np.flatnonzero(labels):
        for j in np.flatnonzero(~labels):
            wins += 1.0 if scores[i] > scores[j] else 0.5 if scores[i] == scores[j] else 0.0
    return wins / (labels.sum() * (~labels).sum())


def aupr_by_thresholds(scores, labels):
    area, recall_before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        found = [labels[i] for i in range(len(scores)) if scores[i] >= threshold]
        recall = sum(found) / labels.sum()
        area += (recall - recall_before) * sum(found) / len(found)
        recall_before = recall
    return area


@st.composite
def samples(draw):
    n = draw(st.integers(2, 40))
    scores = np.array(draw(st.lists(st.integers(-4, 4), min_size=n, max_size=n)), float)
    labels = np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    labels[0], labels[-1] = True, False
    return scores, labels


@settings(deadline=None, max_examples=60)
@given(samples())
def test_metrics_equal_loops_and_sklearn_under_many_ties(sample):
    scores, labels = sample
    assert statistics.auroc(scores, labels) == pytest.approx(auroc_by_pairs(scores, labels))
    assert statistics.auroc(scores, labels) == pytest.approx(roc_auc_score(labels, scores))
    assert statistics.aupr(scores, labels) == pytest.approx(aupr_by_thresholds(scores, labels))
    assert statistics.aupr(scores, labels) == pytest.approx(average_precision_score(labels, scores))


def test_integer_weights_mean_repeated_samples():
    rng = np.random.default_rng(0)
    scores, labels = rng.integers(0, 6, 30).astype(float), rng.random(30) < 0.4
    weights = rng.integers(0, 4, (5, 30)).astype(float)
    for metric, loop in (("auroc", auroc_by_pairs), ("aupr", aupr_by_thresholds)):
        values = statistics.METRICS[metric](scores, labels, weights)
        for value, row in zip(values, weights.astype(int), strict=True):
            expected = loop(np.repeat(scores, row), np.repeat(labels, row))
            assert value == pytest.approx(expected)


def test_interval_equals_a_bootstrap_made_one_draw_at_a_time():
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(12), 5)
    labels = rng.random(60) < 0.3
    scores = labels + rng.normal(size=60)
    fast = statistics.interval("aupr", scores, labels, groups, seed=3, draws=40)

    draws = np.random.default_rng(3).multinomial(12, np.full(12, 1 / 12), size=40)
    values = []
    for times in draws:
        members = [
            i for g in range(12) for _ in range(times[g]) for i in np.flatnonzero(groups == g)
        ]
        values.append(average_precision_score(labels[members], scores[members]))
    assert (fast.low, fast.high) == pytest.approx(tuple(np.percentile(values, [2.5, 97.5])))
    assert fast.value == pytest.approx(average_precision_score(labels, scores))
    assert fast.redrawn == 0


def test_interval_is_seeded_and_names_of_patients_may_be_strings():
    scores, labels = np.arange(40.0), np.arange(40) % 3 == 0
    groups = np.array([f"patient-{i // 4}" for i in range(40)])
    first = statistics.interval("auroc", scores, labels, groups, seed=7, draws=200)
    assert first == statistics.interval("auroc", scores, labels, groups, seed=7, draws=200)
    numbered = statistics.interval("auroc", scores, labels, np.arange(40) // 4, seed=7, draws=200)
    assert first == numbered
    assert first != statistics.interval("auroc", scores, labels, groups, seed=8, draws=200)
    assert first.low <= first.value <= first.high


def test_clusters_widen_the_interval():
    """Ten copies of each patient's frame carry no news: the interval must not shrink."""
    rng = np.random.default_rng(2)
    labels = np.arange(60) % 2 == 0
    scores = labels + rng.normal(size=60)
    once = statistics.interval("auroc", scores, labels, np.arange(60), seed=0)
    copies = [np.repeat(a, 10) for a in (scores, labels, np.arange(60))]
    clustered = statistics.interval("auroc", *copies, seed=0)
    frames = statistics.interval("auroc", *copies[:2], np.arange(600), seed=0)
    assert clustered.high - clustered.low == pytest.approx(once.high - once.low)
    assert frames.high - frames.low < 0.5 * (once.high - once.low)


def test_coverage_of_the_interval():
    """Known truth: AUROC of N(1, 1) against N(0, 1) is Φ(1/√2) = 0.7602."""
    rng = np.random.default_rng(5)
    covered = 0
    for repeat in range(60):
        labels = np.arange(120) % 2 == 0
        scores = labels + rng.normal(size=120)
        found = statistics.interval("auroc", scores, labels, np.arange(120), repeat, draws=200)
        covered += found.low <= 0.76025 <= found.high
    assert 50 <= covered <= 60


def test_degenerate_draws_are_drawn_again_and_counted():
    labels = np.array([1, 0, 0, 0])
    found = statistics.interval(
        "auroc", np.array([3.0, 1, 2, 4]), labels, np.arange(4), 0, draws=300
    )
    without_a_class = 0.75**4 + 0.25**4  # no positive, or nothing else
    assert abs(found.redrawn / (300 + found.redrawn) - without_a_class) < 0.08
    assert np.isfinite([found.low, found.high]).all()


def test_paired_difference():
    rng = np.random.default_rng(3)
    labels = np.arange(200) % 4 == 0
    difficulty = rng.normal(size=200) * 2
    better, worse = labels * 1.0 + difficulty, labels * 0.4 + difficulty
    found = statistics.difference_interval("auroc", better, worse, labels, np.arange(200), seed=0)
    assert found.value == pytest.approx(
        statistics.auroc(better, labels) - statistics.auroc(worse, labels)
    )
    assert 0 < found.low < found.value < found.high
    separate = [statistics.interval("auroc", s, labels, np.arange(200), 0) for s in (better, worse)]
    assert separate[0].low < separate[1].high  # which two separate intervals could not show
    same = statistics.difference_interval("aupr", better, better, labels, np.arange(200), seed=0)
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_ratio_interval():
    hits = np.array([1, 0, 1, 1, 0, 0])
    kept = np.array([1, 1, 1, 1, 0, 0])
    found = statistics.ratio_interval(hits, kept, np.array([0, 0, 1, 1, 2, 2]), seed=0)
    assert found.value == pytest.approx(0.75)
    assert (found.low, found.high) == pytest.approx((0.5, 1.0))
    assert found.redrawn > 0  # draws of patient 2 alone keep nothing
    empty = statistics.ratio_interval(hits, np.zeros(6), np.arange(6), seed=0)
    assert np.isnan([empty.value, empty.low, empty.high]).all()


def test_curves_hold_the_areas():
    rng = np.random.default_rng(4)
    labels = rng.random(50) < 0.3
    scores = np.round(labels + rng.normal(size=50), 1)
    false_rate, true_rate = statistics.roc_curve(scores, labels)
    assert np.trapezoid(true_rate, false_rate) == pytest.approx(statistics.auroc(scores, labels))
    recall, precision = statistics.precision_recall_curve(scores, labels)
    area = (np.diff(np.r_[0, recall]) * precision).sum()
    assert area == pytest.approx(statistics.aupr(scores, labels))


def test_chance_levels():
    labels = np.array([1] * 68 + [0] * 16)
    assert statistics.chance("auroc", labels) == 0.5
    assert statistics.chance("aupr", labels) == pytest.approx(0.8095, abs=1e-4)


@pytest.mark.parametrize(
    ("scores", "labels", "words"),
    [
        ([1.0, 2.0], [1, 1], "one class"),
        ([1.0, float("nan")], [1, 0], "not finite"),
    ],
)
def test_mistakes_are_named(scores, labels, words):
    with pytest.raises(UserError, match=words):
        statistics.auroc(np.array(scores), np.array(labels))


def test_paired_p_is_small_for_a_real_difference_and_not_for_none():
    rng = np.random.default_rng(5)
    labels, patients = np.arange(400) % 4 == 0, np.arange(400) // 2
    good = rng.normal(size=400) + 1.5 * labels
    twins = [good + 0.05 * rng.normal(size=400) for _ in range(2)]
    bad = rng.normal(size=400)
    better = statistics.paired_test("auroc", good, bad, labels, patients, seed=0, draws=400)
    assert better.p == pytest.approx(2 / 401) and better.difference.low > 0
    worse = statistics.paired_test("auroc", bad, good, labels, patients, seed=0, draws=400)
    assert worse.p == better.p and worse.difference.high < 0
    alike = statistics.paired_test("auroc", *twins, labels, patients, seed=0, draws=400)
    assert alike.p > 0.05
    same = statistics.paired_test("auroc", good, good, labels, patients, seed=0, draws=400)
    assert same.p == 1


def test_any_weighted_statistic_has_an_interval():
    rng = np.random.default_rng(6)
    values, groups = rng.normal(size=90), np.arange(90) // 3
    found = statistics.weighted_interval(lambda w: w @ values / w.sum(axis=1), groups, 0)
    assert found.value == pytest.approx(values.mean())
    deviation = values.reshape(30, 3).mean(axis=1).std() / np.sqrt(30)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * deviation, rel=0.15)
