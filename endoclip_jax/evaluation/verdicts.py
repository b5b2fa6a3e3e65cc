"""Whether a claim of the form "A scores better than B" holds: one rule for all of them.

Two things may have made the difference by chance, and each gets its own interval. *Training*: the
seeds are blocks, both models of a seed start and draw alike, and the differences of the seeds give
a t-interval. *Patients*: the mean over seeds is recomputed on patients drawn with replacement. A
claim is confirmed where both 95 % intervals lie above zero, refuted where both lie below, and
otherwise undecided. One seed has no interval and decides nothing.

Several claims are judged side by side, each at 95 %; no correction for their number is made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from endoclip_jax.evaluation.statistics import (
    DRAWS,
    LEVEL,
    METRICS,
    Interval,
    Pair,
    mean_difference_interval,
)

CONFIRMED, REFUTED, UNDECIDED = "confirmed", "refuted", "undecided"


@dataclass(frozen=True)
class ClaimTest:
    """A difference with what is known of its chance; `of_seeds` are the differences themselves."""

    metric: str
    difference: float
    of_seeds: tuple[float, ...]
    over_seeds: Interval
    over_patients: Interval

    @property
    def verdict(self) -> str:
        """`confirmed`, `refuted` or `undecided`."""
        return verdict(self.over_seeds, self.over_patients)

    @property
    def why(self) -> str:
        """The reason for the verdict in words."""
        return _why(self)


def t_interval(values: Sequence[float]) -> Interval:
    """The mean of some seeds' values with its 95 % t-interval; infinitely wide for a single one."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return Interval(mean, -math.inf, math.inf)
    spread = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    half = float(stdtrit(len(values) - 1, (1 + LEVEL) / 2)) * spread
    return Interval(mean, mean - half, mean + half)


def claim_test(metric: str, pairs: Sequence[Pair], seed: int, draws: int = DRAWS) -> ClaimTest:
    """metric ("auroc" or "aupr") of A minus that of B; `pairs` holds both scores of each seed."""
    measure = METRICS[metric]
    of_seeds = []
    for pair in pairs:
        labels, once = np.asarray(pair.labels).astype(bool), np.ones((1, len(pair.labels)))
        a, b = (np.asarray(s, np.float64) for s in (pair.scores, pair.other_scores))
        of_seeds.append(float(measure(a, labels, once)[0] - measure(b, labels, once)[0]))
    return ClaimTest(
        metric=metric,
        difference=float(np.mean(of_seeds)),
        of_seeds=tuple(of_seeds),
        over_seeds=t_interval(of_seeds),
        over_patients=mean_difference_interval(metric, pairs, seed, draws),
    )


def verdict(over_seeds: Interval, over_patients: Interval) -> str:
    """What the two intervals of a difference say together."""
    if min(over_seeds.low, over_patients.low) > 0:
        return CONFIRMED
    if max(over_seeds.high, over_patients.high) < 0:
        return REFUTED
    return UNDECIDED


def _why(test: ClaimTest) -> str:
    if test.verdict == CONFIRMED:
        return "both intervals lie above zero"
    if test.verdict == REFUTED:
        return "both intervals lie below zero"
    if len(test.of_seeds) < 2:
        return "one seed decides nothing"
    open_ones = [
        name
        for name, interval in (("seeds", test.over_seeds), ("patients", test.over_patients))
        if interval.low <= 0 <= interval.high
    ]
    if not open_ones:
        return "the intervals contradict each other"
    return f"other {' or other '.join(open_ones)} could show none of it, or the opposite"
