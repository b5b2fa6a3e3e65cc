"""Sensitivity and specificity at one threshold, which is chosen on other patients.

A threshold that is read off the test set's own curve promises what nobody will get. Here it is the
lowest one that reaches the wanted specificity on a validation set, or, where there is none, on the
other folds' patients.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from endoclip_jax.evaluation.folds import FOLDS, patient_folds
from endoclip_jax.evaluation.statistics import DRAWS, Groups, Interval, Labels, ratio_interval

SPECIFICITY = 0.9


@dataclass(frozen=True)
class OperatingPoint:
    """What the calls made at the threshold are worth, on the evaluated patients.

    `threshold` is the mean where each fold has its own.
    """

    threshold: float
    sensitivity: Interval
    specificity: Interval
    precision: Interval


def threshold_at(
    scores: Float[np.ndarray, " n"], labels: Labels, specificity: float = SPECIFICITY
) -> float:
    """The lowest t for which a share ≥ `specificity` of the negatives scores below t.

    A sample is called positive if its score is ≥ t. Infinite where even the highest negative is
    not below any other score.
    """
    negatives = np.sort(np.asarray(scores, np.float64)[~np.asarray(labels).astype(bool)])
    below = int(np.ceil(specificity * len(negatives) - 1e-9))
    return float(np.nextafter(negatives[below - 1], np.inf)) if below else -np.inf


def chosen_elsewhere(
    scores: Float[np.ndarray, " n"],
    labels: Labels,
    patients: Groups,
    threshold: float,
    *,
    seed: int,
    draws: int = DRAWS,
) -> OperatingPoint:
    """The calls at a threshold that was chosen on other patients."""
    calls = np.asarray(scores, np.float64) >= threshold
    return _measured(calls, labels, patients, threshold, seed, draws)


def chosen_by_folds(
    scores: Float[np.ndarray, " n"],
    labels: Labels,
    patients: Groups,
    *,
    specificity: float = SPECIFICITY,
    folds: int = FOLDS,
    seed: int,
    draws: int = DRAWS,
) -> OperatingPoint:
    """The calls where each fold's threshold is chosen on the other folds' patients."""
    scores, labels = np.asarray(scores, np.float64), np.asarray(labels).astype(bool)
    fold_of = patient_folds(labels, patients, folds=folds, seed=seed)
    thresholds = np.asarray(
        [
            threshold_at(scores[fold_of != fold], labels[fold_of != fold], specificity)
            for fold in range(folds)
        ]
    )
    calls = scores >= thresholds[fold_of]
    return _measured(calls, labels, patients, float(thresholds.mean()), seed, draws)


def _measured(
    calls: Bool[np.ndarray, " n"],
    labels: Labels,
    patients: Groups,
    threshold: float,
    seed: int,
    draws: int,
) -> OperatingPoint:
    positive = np.asarray(labels).astype(bool)

    def share(hits: np.ndarray, of: np.ndarray) -> Interval:
        return ratio_interval(hits, of, patients, seed, draws)

    return OperatingPoint(
        threshold,
        sensitivity=share(calls & positive, positive),
        specificity=share(~calls & ~positive, ~positive),
        precision=share(calls & positive, calls),
    )
