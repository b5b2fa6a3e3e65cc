"""Few-shot: a logistic regression on frozen features, its training patients drawn at random.

Endo-CLIP, Table 1, gives 5 % and 10 % of the detection set and 10 % and 20 % of the malignancy set
and does not say how they were drawn. Here the fraction is drawn by *patient* (frames of one patient
on both sides would leak), stratified by the classes a patient holds, and all the rest is the test.
10 % of 84 polyps are 8 images with one or two benign ones: one draw means nothing, so the result
is a mean and a standard deviation over seeds. So few labels cannot choose a regularisation either:
it is one for all models, on features that are brought to one centre and one spread first. Without
that it decides the comparison: a network without a contrastive loss lays all frames close together
(cosines of .99 for a random ResNet), and a fixed penalty takes that for a lack of signal.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from endoclip_jax.errors import UserError
from endoclip_jax.evaluation.statistics import Groups, Labels, aupr, auroc

FRACTIONS = {"detection": (0.05, 0.10), "malignancy": (0.10, 0.20)}
SEEDS = {"detection": 5, "malignancy": 20}
INVERSE_REGULARISATION = 10.0
PROTOCOL = f"unit length, centred, mean square 1, C {INVERSE_REGULARISATION:g}"
"""What an evaluation depends on besides its data: another protocol, other numbers."""


@dataclass(frozen=True)
class FewShot:
    """Values of each seed, and how many samples they were trained on."""

    fraction: float
    auroc: tuple[float, ...]
    aupr: tuple[float, ...]
    trained_on: tuple[int, ...]

    def mean_sd(self, metric: str) -> tuple[float, float]:
        """Mean and standard deviation (n − 1) over the seeds of "auroc" or "aupr"."""
        values = np.asarray(getattr(self, metric))
        return float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else 0.0


def few_shot(
    features: Float[np.ndarray, "n d"],
    labels: Labels,
    patients: Groups,
    *,
    fraction: float,
    seeds: Sequence[int],
) -> FewShot:
    """Train on a `fraction` of the patients, test on all the others, once for each seed."""
    labels = np.asarray(labels).astype(bool)
    features = unit(features)
    aurocs, auprs, sizes = [], [], []
    for seed in seeds:
        train = draw_patients(labels, patients, fraction=fraction, seed=seed)
        scores = linear_probe(features[train], labels[train], features[~train])
        aurocs.append(auroc(scores, labels[~train]))
        auprs.append(aupr(scores, labels[~train]))
        sizes.append(int(train.sum()))
    return FewShot(fraction, tuple(aurocs), tuple(auprs), tuple(sizes))


def draw_patients(
    labels: Bool[np.ndarray, " n"],
    patients: Groups,
    *,
    fraction: float,
    seed: int,
) -> Bool[np.ndarray, " n"]:
    """Mask of the training samples: whole patients, both classes on both sides.

    Patients are stratified by what they hold (only negatives, only positives, both). A stratum
    gives `fraction` of its patients, but at least one and never all; one of a single patient goes
    to the test side.
    """
    names, patient_of = np.unique(np.asarray(patients), return_inverse=True)
    has_positive = np.bincount(patient_of, weights=labels, minlength=len(names)) > 0
    has_negative = np.bincount(patient_of, weights=~labels, minlength=len(names)) > 0
    stratum_of = 2 * has_positive + has_negative
    rng = np.random.default_rng(seed)
    chosen = np.zeros(len(names), bool)
    for stratum in np.unique(stratum_of):
        members = rng.permutation(np.flatnonzero(stratum_of == stratum))
        wanted = min(max(1, round(fraction * len(members))), len(members) - 1)
        chosen[members[:wanted]] = True
    train = chosen[patient_of]
    for side, mask in (("training", train), ("test", ~train)):
        if len(np.unique(labels[mask])) < 2:
            raise UserError(
                f"few-shot at {fraction:.0%} leaves the {side} side with one class, because too "
                f"few of the {len(names)} patients hold the other: use a larger labelled set"
            )
    return train


def linear_probe(
    train_features: Float[np.ndarray, "n d"],
    train_labels: Bool[np.ndarray, " n"],
    test_features: Float[np.ndarray, "m d"],
    *,
    inverse_regularisation: float = INVERSE_REGULARISATION,
) -> Float[np.ndarray, " m"]:
    """Scores (log-odds) of an L2-regularised logistic regression; higher = positive.

    Neither the place of the features' mean nor their common scale changes the scores.

    Raises `UserError` when the solver does not converge: an unfinished fit is not a result.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    train_features, test_features = _centred(train_features, test_features)
    probe = LogisticRegression(C=inverse_regularisation, max_iter=1000)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            probe.fit(train_features, train_labels)
        except ConvergenceWarning as warning:
            raise UserError(
                f"the linear classifier did not converge on {len(train_labels)} samples: check "
                "that the features are finite and not all equal"
            ) from warning
    return probe.decision_function(test_features)


def _centred(
    train: Float[np.ndarray, "n d"], test: Float[np.ndarray, "m d"]
) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "m d"]]:
    """Both around the training samples' mean, whose mean squared distance from it becomes 1."""
    mean = train.mean(axis=0)
    spread = np.sqrt(np.mean(np.sum((train - mean) ** 2, axis=1)))
    return (train - mean) / max(spread, 1e-12), (test - mean) / max(spread, 1e-12)


def unit(features: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    """The features at length one, in float64."""
    features = np.asarray(features, np.float64)
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
