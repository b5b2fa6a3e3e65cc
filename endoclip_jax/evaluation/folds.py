"""Folds of whole patients, so that nothing is tuned on the patients it is judged by."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int

from endoclip_jax.errors import UserError
from endoclip_jax.evaluation.statistics import Groups

FOLDS = 5


def patient_folds(
    labels: Bool[np.ndarray, " n"], patients: Groups, *, folds: int = FOLDS, seed: int
) -> Int[np.ndarray, " n"]:
    """The fold of each sample: whole patients, stratified by the classes that a patient holds.

    Patients of each stratum (only negatives, only positives, both) are shuffled and dealt out in
    turn, each stratum going on where the one before stopped.

    Raises:
      UserError: where some fold, or all others together, would lack a class.
    """
    labels = np.asarray(labels).astype(bool)
    names, patient_of = np.unique(np.asarray(patients), return_inverse=True)
    has_positive = np.bincount(patient_of, weights=labels, minlength=len(names)) > 0
    has_negative = np.bincount(patient_of, weights=~labels, minlength=len(names)) > 0
    stratum_of = 2 * has_positive + has_negative
    rng = np.random.default_rng(seed)
    order = np.concatenate(
        [rng.permutation(np.flatnonzero(stratum_of == s)) for s in np.unique(stratum_of)]
    )
    fold_of = np.empty(len(names), np.int64)
    fold_of[order] = np.arange(len(names)) % folds
    assigned = fold_of[patient_of]
    if any(len(np.unique(labels[assigned == fold])) < 2 for fold in range(folds)):
        raise UserError(
            f"{folds} folds of {len(names)} patients cannot all hold both classes: use a larger "
            "labelled set"
        )
    return assigned
