"""Ranking metrics and their patient-clustered bootstrap intervals.

AUROC is the chance that a random positive scores above a random negative (a tie counts one half).
AUPR is average precision, Σ_k (R_k − R_{k−1}) P_k over distinct thresholds; its chance level is the
share of positives, not one half. Frames of one patient are alike, so every interval here resamples
*patients*: resampling frames would claim a precision that the data does not have.

Both metrics are computed for weighted samples. A bootstrap draw that picks patient `g` three times
gives weight 3 to each of that patient's frames, so one sort of the scores serves all the draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from endoclip_jax.errors import UserError

DRAWS = 1000
LEVEL = 0.95
_CELLS_PER_CHUNK = 2_000_000  # weights held at once: 16 MB, whatever the number of frames

Labels = Bool[np.ndarray, " n"] | Int[np.ndarray, " n"]  # positive: True or 1
Groups = Shaped[np.ndarray, " n"]  # the patient of each sample, as any kind of name

WeightedMetric = Callable[
    [Float[np.ndarray, " n"], Bool[np.ndarray, " n"], Float[np.ndarray, "draws n"]],
    Float[np.ndarray, " draws"],
]


@dataclass(frozen=True)
class Interval:
    """A value with its percentile interval; `redrawn` draws were replaced for lack of a class."""

    value: float
    low: float
    high: float
    redrawn: int = 0


def weighted_auroc(
    scores: Float[np.ndarray, " n"],
    labels: Bool[np.ndarray, " n"],
    weights: Float[np.ndarray, "draws n"],
) -> Float[np.ndarray, " draws"]:
    """AUROC under each row of sample weights; NaN where a row leaves a class without weight."""
    order, blocks = _tied_blocks(scores)
    positive, negative = _class_weight_per_block(labels[order], weights[:, order], blocks)
    below = np.cumsum(negative, axis=1) - negative
    pairs = positive.sum(axis=1) * negative.sum(axis=1)
    return _ratio((positive * (below + 0.5 * negative)).sum(axis=1), pairs)


def weighted_aupr(
    scores: Float[np.ndarray, " n"],
    labels: Bool[np.ndarray, " n"],
    weights: Float[np.ndarray, "draws n"],
) -> Float[np.ndarray, " draws"]:
    """Average precision under each row of sample weights; NaN where no positive has weight."""
    order, blocks = _tied_blocks(-scores)
    positive, negative = _class_weight_per_block(labels[order], weights[:, order], blocks)
    true, false = np.cumsum(positive, axis=1), np.cumsum(negative, axis=1)
    found = true + false
    precision = np.divide(true, found, out=np.zeros_like(true), where=found > 0)
    return _ratio((positive * precision).sum(axis=1), positive.sum(axis=1))


METRICS: dict[str, WeightedMetric] = {"auroc": weighted_auroc, "aupr": weighted_aupr}


def auroc(scores: Float[np.ndarray, " n"], labels: Labels) -> float:
    """Area under the ROC curve. Raises `UserError` unless both classes occur."""
    return _value("auroc", *_checked(scores, labels))


def aupr(scores: Float[np.ndarray, " n"], labels: Labels) -> float:
    """Average precision. Raises `UserError` unless both classes occur."""
    return _value("aupr", *_checked(scores, labels))


def chance(metric: str, labels: Labels) -> float:
    """What a score that knows nothing gets: 0.5 for AUROC, the share of positives for AUPR."""
    return 0.5 if metric == "auroc" else float(np.mean(np.asarray(labels).astype(bool)))


def interval(
    metric: str,
    scores: Float[np.ndarray, " n"],
    labels: Labels,
    groups: Groups,
    seed: int,
    draws: int = DRAWS,
) -> Interval:
    """The metric ("auroc" or "aupr") with its patient-clustered 95 % bootstrap interval.

    Draws in which one class is missing have no value: they are drawn again, and counted in
    `redrawn`.
    """
    scores, labels = _checked(scores, labels)
    values, redrawn = _bootstrap(
        lambda weights: METRICS[metric](scores, labels, weights), groups, seed, draws
    )
    return Interval(_value(metric, scores, labels), *_percentiles(values), redrawn)


def difference_interval(
    metric: str,
    scores: Float[np.ndarray, " n"],
    other_scores: Float[np.ndarray, " n"],
    labels: Labels,
    groups: Groups,
    seed: int,
    draws: int = DRAWS,
) -> Interval:
    """The difference of `paired_test` alone, with its interval."""
    return paired_test(metric, scores, other_scores, labels, groups, seed, draws).difference


@dataclass(frozen=True)
class PairedTest:
    """A difference with its interval, and the two-sided bootstrap p of there being none."""

    difference: Interval
    p: float


def paired_test(
    metric: str,
    scores: Float[np.ndarray, " n"],
    other_scores: Float[np.ndarray, " n"],
    labels: Labels,
    groups: Groups,
    seed: int,
    draws: int = DRAWS,
) -> PairedTest:
    """metric(scores) − metric(other_scores) on the same samples, patients resampled jointly.

    The paired interval is the honest answer to "is the one model better": two separate intervals
    may overlap while every draw agrees on the winner. p is twice the share of draws on the other
    side of zero, that share counted with one draw more than there were (Davison and Hinkley, 1997,
    eq. 4.11), so that it is never zero.
    """
    scores, labels = _checked(scores, labels)
    other_scores, _ = _checked(other_scores, labels)
    measure = METRICS[metric]
    values, redrawn = _bootstrap(
        lambda weights: measure(scores, labels, weights) - measure(other_scores, labels, weights),
        groups,
        seed,
        draws,
    )
    difference = _value(metric, scores, labels) - _value(metric, other_scores, labels)
    beyond = min(int((values <= 0).sum()), int((values >= 0).sum()))
    p = min(1.0, 2 * (beyond + 1) / (len(values) + 1))
    return PairedTest(Interval(difference, *_percentiles(values), redrawn), p)


def weighted_interval(
    statistic: Callable[[Float[np.ndarray, "draws n"]], Float[np.ndarray, " draws"]],
    groups: Groups,
    seed: int,
    draws: int = DRAWS,
) -> Interval:
    """Any statistic of sample weights with its patient-clustered interval; NaN draws are redrawn.

    A statistic that has no value on the data itself gives NaN throughout.
    """
    value = float(statistic(np.ones((1, len(groups))))[0])
    if not np.isfinite(value):
        return Interval(float("nan"), float("nan"), float("nan"))
    values, redrawn = _bootstrap(statistic, groups, seed, draws)
    return Interval(value, *_percentiles(values), redrawn)


@dataclass(frozen=True)
class Pair:
    """Two models' scores of the same samples, and whose samples they are."""

    scores: Float[np.ndarray, " n"]
    other_scores: Float[np.ndarray, " n"]
    labels: Labels
    groups: Groups


def mean_difference_interval(
    metric: str, pairs: Sequence[Pair], seed: int, draws: int = DRAWS
) -> Interval:
    """Mean over pairs (one for each training seed) of metric(scores) − metric(other_scores).

    Patients are resampled jointly: one who stands in several pairs has the same weight in all of
    them, since what is asked is whether *other patients* would say the same.
    """
    checked = [
        (_checked(pair.scores, pair.labels), _checked(pair.other_scores, pair.labels)[0])
        for pair in pairs
    ]
    measure = METRICS[metric]
    ends = np.cumsum([len(pair.groups) for pair in pairs])[:-1]

    def mean_difference(weights: Float[np.ndarray, "draws n"]) -> Float[np.ndarray, " draws"]:
        parts = np.split(weights, ends, axis=1)
        differences = [
            measure(scores, labels, part) - measure(other, labels, part)
            for ((scores, labels), other), part in zip(checked, parts, strict=True)
        ]
        return np.mean(differences, axis=0)

    groups = np.concatenate([np.asarray(pair.groups) for pair in pairs])
    values, redrawn = _bootstrap(mean_difference, groups, seed, draws)
    whole = mean_difference(np.ones((1, len(groups))))
    return Interval(float(whole[0]), *_percentiles(values), redrawn)


def ratio_interval(
    numerator: Shaped[np.ndarray, " n"],
    denominator: Shaped[np.ndarray, " n"],
    groups: Groups,
    seed: int,
    draws: int = DRAWS,
) -> Interval:
    """Σ numerator / Σ denominator (a precision, a recall) with its patient-clustered interval.

    Draws whose denominator is zero are drawn again and counted. A zero denominator in the data
    itself gives NaN throughout.
    """
    numerator = np.asarray(numerator, np.float64)
    denominator = np.asarray(denominator, np.float64)
    total = denominator.sum()
    if total <= 0:
        return Interval(float("nan"), float("nan"), float("nan"))
    values, redrawn = _bootstrap(
        lambda weights: _ratio(weights @ numerator, weights @ denominator),
        groups,
        seed,
        draws,
    )
    return Interval(float(numerator.sum() / total), *_percentiles(values), redrawn)


def roc_curve(
    scores: Float[np.ndarray, " n"], labels: Labels
) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    """(false positive rate, true positive rate) at every distinct threshold, from (0, 0)."""
    true, false = _cumulative_counts(*_checked(scores, labels))
    return np.r_[0, false] / false[-1], np.r_[0, true] / true[-1]


def precision_recall_curve(
    scores: Float[np.ndarray, " n"], labels: Labels
) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    """(recall, precision) at every distinct threshold, from the highest score down."""
    true, false = _cumulative_counts(*_checked(scores, labels))
    return true / true[-1], true / (true + false)


def _bootstrap(
    statistic: Callable[[Float[np.ndarray, "draws n"]], Float[np.ndarray, " draws"]],
    groups: Groups,
    seed: int,
    draws: int,
) -> tuple[Float[np.ndarray, " draws"], int]:
    """`draws` finite values of the statistic over resampled groups; how many were drawn again."""
    names, group_of = np.unique(np.asarray(groups), return_inverse=True)
    values: list[np.ndarray] = []
    redrawn, missing = 0, draws
    for weights in _group_weights(len(names), group_of, seed):
        drawn = statistic(weights[:missing])
        finite = np.isfinite(drawn)
        values.append(drawn[finite])
        redrawn += int((~finite).sum())
        missing -= int(finite.sum())
        if missing == 0:
            break
    return np.concatenate(values), redrawn


def _group_weights(
    count: int, group_of: Int[np.ndarray, " n"], seed: int
) -> Iterator[Float[np.ndarray, "chunk n"]]:
    """Endless chunks of bootstrap weights: how often each sample's group was drawn."""
    rng = np.random.default_rng(seed)
    chunk = max(1, _CELLS_PER_CHUNK // max(1, len(group_of)))
    while True:
        times_drawn = rng.multinomial(count, np.full(count, 1 / count), size=min(chunk, DRAWS))
        yield times_drawn[:, group_of].astype(np.float64)


def _percentiles(values: Float[np.ndarray, " draws"]) -> tuple[float, float]:
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)


def _checked(
    scores: Float[np.ndarray, " n"], labels: Labels
) -> tuple[Float[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    scores = np.asarray(scores, np.float64)
    labels = np.asarray(labels).astype(bool)
    broken = int((~np.isfinite(scores)).sum())
    if broken:
        raise UserError(
            f"{broken} of {len(scores)} scores are not finite: the model that made them is broken, "
            "look at its training log"
        )
    if labels.all() or not labels.any():
        raise UserError(
            f"all {len(labels)} samples are of one class, so AUROC and AUPR do not exist: "
            "evaluate on a set that holds both"
        )
    return scores, labels


def _value(metric: str, scores: Float[np.ndarray, " n"], labels: Bool[np.ndarray, " n"]) -> float:
    return float(METRICS[metric](scores, labels, np.ones((1, len(scores))))[0])


def _tied_blocks(
    keys: Float[np.ndarray, " n"],
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " blocks"]]:
    """Ascending order of the keys, and where in that order each run of equal keys begins."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    return order, np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])


def _class_weight_per_block(
    labels: Bool[np.ndarray, " n"],
    weights: Float[np.ndarray, "draws n"],
    blocks: Int[np.ndarray, " blocks"],
) -> tuple[Float[np.ndarray, "draws blocks"], Float[np.ndarray, "draws blocks"]]:
    positive = np.add.reduceat(weights * labels, blocks, axis=1)
    negative = np.add.reduceat(weights * ~labels, blocks, axis=1)
    return positive, negative


def _cumulative_counts(
    scores: Float[np.ndarray, " n"], labels: Bool[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, " blocks"], Float[np.ndarray, " blocks"]]:
    """True and false positives at each distinct threshold, from the highest score down."""
    order, blocks = _tied_blocks(-scores)
    positive, negative = _class_weight_per_block(labels[order], np.ones((1, len(order))), blocks)
    return np.cumsum(positive[0]), np.cumsum(negative[0])


def _ratio(
    numerator: Float[np.ndarray, " draws"], denominator: Float[np.ndarray, " draws"]
) -> Float[np.ndarray, " draws"]:
    """Elementwise ratio; NaN where the denominator is zero."""
    return np.divide(
        numerator, denominator, out=np.full_like(numerator, np.nan), where=denominator > 0
    )
