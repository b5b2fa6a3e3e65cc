"""Full linear probe: logistic regression on frozen features of all training patients.

Where a set has no training part of its own, every patient is scored by a probe that was trained on
the other folds' patients. The strength of regularisation is chosen by folds *inside* the training
patients, by mean AUROC, so that no patient takes part in choosing the probe that scores it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from endoclip_jax.evaluation.few_shot import linear_probe, unit
from endoclip_jax.evaluation.folds import FOLDS, patient_folds
from endoclip_jax.evaluation.statistics import Groups, Labels, auroc

GRID = (0.1, 1.0, 10.0, 100.0)
"""Inverse strengths of regularisation to choose from."""
_INNER_FOLDS = 3


@dataclass(frozen=True)
class Probe:
    """Log-odds of held-out samples, and the inverse regularisation that each fit had chosen."""

    scores: Float[np.ndarray, " n"]
    chosen: tuple[float, ...]


def cross_validated(
    features: Float[np.ndarray, "n d"],
    labels: Labels,
    patients: Groups,
    *,
    folds: int = FOLDS,
    seed: int,
) -> Probe:
    """Scores of every sample by a probe that never saw its patient."""
    labels, patients = np.asarray(labels).astype(bool), np.asarray(patients)
    fold_of = patient_folds(labels, patients, folds=folds, seed=seed)
    scores = np.empty(len(labels), np.float64)
    chosen: list[float] = []
    for fold in range(folds):
        train = fold_of != fold
        fit = transferred(
            features[train], labels[train], patients[train], features[~train], seed=seed
        )
        scores[~train] = fit.scores
        chosen += fit.chosen
    return Probe(scores, tuple(chosen))


def transferred(
    train_features: Float[np.ndarray, "n d"],
    train_labels: Labels,
    train_patients: Groups,
    test_features: Float[np.ndarray, "m d"],
    *,
    seed: int,
) -> Probe:
    """Scores of the test samples by a probe trained on other patients."""
    labels = np.asarray(train_labels).astype(bool)
    train, test = unit(train_features), unit(test_features)
    inner = patient_folds(labels, train_patients, folds=_INNER_FOLDS, seed=seed)
    best = max(GRID, key=lambda strength: (_inner_auroc(train, labels, inner, strength), -strength))
    return Probe(linear_probe(train, labels, test, inverse_regularisation=best), (best,))


def _inner_auroc(
    features: Float[np.ndarray, "n d"],
    labels: Bool[np.ndarray, " n"],
    fold_of: np.ndarray,
    strength: float,
) -> float:
    values = []
    for fold in range(_INNER_FOLDS):
        test = fold_of == fold
        scores = linear_probe(
            features[~test], labels[~test], features[test], inverse_regularisation=strength
        )
        values.append(auroc(scores, labels[test]))
    return float(np.mean(values))
