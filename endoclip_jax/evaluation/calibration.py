"""Is a probability of 0.7 right seven times in ten? Reliability, its error, and recalibration.

A zero-shot probability is the softmax of two scaled cosines: its scale was learnt for another
purpose (to tell patients of a batch apart) and its classes were balanced by the prompts, not by
prevalence. Recalibration fits one number (temperature: a scale) or two (Platt: a scale and an
offset, J. Platt, 1999) on the *other* folds' patients.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from endoclip_jax.evaluation.folds import FOLDS, patient_folds
from endoclip_jax.evaluation.statistics import (
    DRAWS,
    Groups,
    Interval,
    Labels,
    weighted_interval,
)

BINS = 10
_STEPS = 100


@dataclass(frozen=True)
class Reliability:
    """Bins of equal numbers of samples: mean probability, share of positives, samples."""

    predicted: Float[np.ndarray, " b"]
    observed: Float[np.ndarray, " b"]
    count: Int[np.ndarray, " b"]


@dataclass(frozen=True)
class Calibration:
    """Probabilities and how far they are off: expected calibration error and Brier score.

    The Brier score's interval resamples patients. The calibration error has none: it cannot be
    negative, so that resampling raises it, and a percentile interval would not hold its value.
    """

    probabilities: Float[np.ndarray, " n"]
    ece: float
    brier: Interval
    curve: Reliability


def calibration(
    probabilities: Float[np.ndarray, " n"],
    labels: Labels,
    patients: Groups,
    *,
    seed: int,
    draws: int = DRAWS,
) -> Calibration:
    """How well probabilities of the positive class agree with what came true."""
    probabilities = np.asarray(probabilities, np.float64)
    labels = np.asarray(labels).astype(bool)
    squares = (labels - probabilities) ** 2

    def brier(weights: Float[np.ndarray, "draws n"]) -> Float[np.ndarray, " draws"]:
        return weights @ squares / weights.sum(axis=1)

    curve = reliability(probabilities, labels)
    gaps = np.abs(curve.observed - curve.predicted)
    ece = float(gaps @ curve.count / curve.count.sum())
    return Calibration(probabilities, ece, weighted_interval(brier, patients, seed, draws), curve)


def reliability(probabilities: Float[np.ndarray, " n"], labels: Labels) -> Reliability:
    """The reliability curve over at most `BINS` bins; equal probabilities share a bin."""
    bins, labels = _bins(probabilities), np.asarray(labels).astype(bool)
    count = np.bincount(bins, minlength=BINS)
    filled = count > 0
    mean = np.bincount(bins, weights=probabilities, minlength=BINS)[filled] / count[filled]
    share = np.bincount(bins, weights=labels, minlength=BINS)[filled] / count[filled]
    return Reliability(mean, share, count[filled])


def recalibrated(
    scores: Float[np.ndarray, " n"],
    labels: Labels,
    patients: Groups,
    *,
    offset: bool,
    folds: int = FOLDS,
    seed: int,
) -> Float[np.ndarray, " n"]:
    """Probabilities of held-out patients, by a scale (and offset) fitted on the other folds."""
    scores, labels = np.asarray(scores, np.float64), np.asarray(labels).astype(bool)
    fold_of = patient_folds(labels, patients, folds=folds, seed=seed)
    probabilities = np.empty(len(scores))
    for fold in range(folds):
        test = fold_of == fold
        slope, intercept = fit_logistic(scores[~test], labels[~test], offset=offset)
        probabilities[test] = sigmoid(slope * scores[test] + intercept)
    return probabilities


def fit_logistic(
    scores: Float[np.ndarray, " n"], labels: Bool[np.ndarray, " n"], *, offset: bool
) -> tuple[float, float]:
    """(slope, intercept) of the likeliest p = sigmoid(slope · score + intercept), by Newton steps.

    Platt's targets, (n₊ + 1)/(n₊ + 2) and 1/(n₋ + 2), keep it finite where scores separate the
    classes. Without `offset` the intercept is 0.
    """
    spread = float(np.std(scores)) or 1.0
    design = np.stack([scores / spread, np.full(len(scores), float(offset))], axis=1)
    positive, negative = int(labels.sum()), int((~labels).sum())
    target = np.where(labels, (positive + 1) / (positive + 2), 1 / (negative + 2))
    weights = np.zeros(2)
    for _ in range(_STEPS):
        p = sigmoid(design @ weights)
        gradient = design.T @ (p - target)
        curvature = design.T @ (design * np.maximum(p * (1 - p), 1e-12)[:, None])
        step = np.linalg.solve(curvature + 1e-9 * len(scores) * np.eye(2), gradient)
        weights -= step / max(1.0, float(np.abs(step).max()))  # far from the optimum Newton leaps
        if np.abs(step).max() < 1e-10:
            break
    return float(weights[0] / spread), float(weights[1])


def sigmoid(x: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """1 / (1 + e^(−x)) without overflow."""
    return 0.5 * (1 + np.tanh(0.5 * np.asarray(x, np.float64)))


def _bins(probabilities: Float[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """The tenth of the samples that each probability falls into."""
    edges = np.quantile(probabilities, np.arange(1, BINS) / BINS)
    return np.searchsorted(edges, probabilities, side="right")
