"""What a task's scores are worth beyond a ranking: probabilities, thresholds, parts, a full probe.

Everything is a row of `results.json`. Settings name what was done: "temperature" (a probability
recalibrated on other folds' patients), "at 90 % specificity", "size_class giant_ge20mm".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from endoclip_jax.errors import UserError
from endoclip_jax.evaluation import calibration, linear_probe, operating, strata
from endoclip_jax.evaluation.attention_truth import AttentionQuality
from endoclip_jax.evaluation.evaluate import TaskResult
from endoclip_jax.evaluation.results import ZERO_SHOT, Row, interval_row, scored_rows
from endoclip_jax.evaluation.retrieval import Retrieval
from endoclip_jax.evaluation.statistics import paired_test
from endoclip_jax.evaluation.subjects import AnySubject, Subject

AS_TRAINED, TEMPERATURE, PLATT = "as trained", "temperature", "Platt"


@dataclass
class Analysis:
    """Rows, notes, and the reliability curves by setting."""

    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    curves: dict[str, calibration.Reliability] = field(default_factory=dict)


def calibrations(subject: Subject, result: TaskResult, *, seed: int, draws: int) -> Analysis:
    """Expected calibration error and Brier score, as trained and recalibrated on other patients."""
    assert result.truth is not None
    found = Analysis()
    scores, labels = result.scores[subject.name], result.labels
    patients = result.truth.patients
    probabilities = {
        AS_TRAINED: calibration.sigmoid(subject.scale * np.asarray(scores, np.float64))
    }
    try:
        for name, offset in ((TEMPERATURE, False), (PLATT, True)):
            probabilities[name] = calibration.recalibrated(
                scores, labels, patients, offset=offset, seed=seed
            )
    except UserError as error:
        found.notes.append(f"{result.task}: not recalibrated, because {error}")
    for name, p in probabilities.items():
        measured = calibration.calibration(p, labels, patients, seed=seed, draws=draws)
        found.curves[name] = measured.curve
        found.rows += [
            Row(subject.name, result.task, name, "ece", measured.ece),
            interval_row(subject.name, result.task, name, "brier", measured.brier),
        ]
    return found


def operating_point(
    name: str,
    result: TaskResult,
    validation: TaskResult | None,
    *,
    specificity: float,
    seed: int,
    draws: int,
) -> Analysis:
    """Sensitivity, specificity, precision at a threshold from validation, or from other folds."""
    assert result.truth is not None
    scores, labels, patients = result.scores[name], result.labels, result.truth.patients
    setting = f"at {100 * specificity:g} % specificity"
    try:
        if validation is None:
            setting += " of other folds"
            point = operating.chosen_by_folds(
                scores, labels, patients, specificity=specificity, seed=seed, draws=draws
            )
        else:
            setting += " in validation"
            threshold = operating.threshold_at(
                validation.scores[name], validation.labels, specificity
            )
            point = operating.chosen_elsewhere(
                scores, labels, patients, threshold, seed=seed, draws=draws
            )
    except UserError as error:
        return Analysis(notes=[f"{result.task}: no operating point, because {error}"])
    measured = {
        "sensitivity": point.sensitivity,
        "specificity": point.specificity,
        "precision": point.precision,
    }
    return Analysis(
        [interval_row(name, result.task, setting, metric, s) for metric, s in measured.items()]
    )


def by_parts(name: str, result: TaskResult, *, seed: int, draws: int) -> Analysis:
    """The headline score by segment, size class and imaging mode, where the set has these."""
    assert result.truth is not None
    found = Analysis()
    for column, values in result.truth.strata.items():
        rows, notes = strata.stratum_rows(
            name, result.task, ZERO_SHOT, column, values, result.scores[name], result.labels,
            result.truth.patients, seed=seed, draws=draws,
        )  # fmt: skip
        found.rows += rows
        found.notes += notes
    missing = strata.absent(list(result.truth.strata))
    if missing:
        found.notes.append(f"{result.task}: no results by {', '.join(missing)}, not in this set")
    return found


def full_probe(
    subject: AnySubject,
    result: TaskResult,
    training: TaskResult | None,
    *,
    seed: int,
    draws: int,
) -> Analysis:
    """The linear probe on all patients of the training part, or of the other folds."""
    assert result.truth is not None
    name = subject.name
    features, labels, patients = result.features[name], result.labels, result.truth.patients
    try:
        if training is None:
            setting = "linear probe, other folds"
            probe = linear_probe.cross_validated(features, labels, patients, seed=seed)
        else:
            assert training.truth is not None
            setting = "linear probe, training split"
            probe = linear_probe.transferred(
                training.features[name], training.labels, training.truth.patients, features,
                seed=seed,
            )  # fmt: skip
    except UserError as error:
        return Analysis(notes=[f"{result.task}: no linear probe, because {error}"])
    return Analysis(
        scored_rows(name, result.task, setting, probe.scores, labels, patients, seed, draws)
    )


def compared(first: str, second: str, result: TaskResult, *, seed: int, draws: int) -> list[Row]:
    """The paired test of two models' headline scores: difference, interval and p."""
    assert result.truth is not None
    rows = []
    for metric in ("auroc", "aupr"):
        test = paired_test(
            metric, result.scores[first], result.scores[second], result.labels,
            result.truth.patients, seed, draws,
        )  # fmt: skip
        name = f"{first} − {second}"
        rows.append(
            interval_row(
                name, result.task, ZERO_SHOT, f"{metric} difference", test.difference, p=test.p
            )
        )
    return rows


def retrieval_rows(name: str, found: dict[str, Retrieval]) -> list[Row]:
    """Recall at each K in each direction."""
    return [
        interval_row(
            name, "retrieval", direction, f"recall@{k}", spread, chance=search.chance[k],
            n_pos=search.queries,
        )
        for direction, search in found.items()
        for k, spread in search.recall.items()
    ]  # fmt: skip


def attention_rows(name: str, found: dict[str, AttentionQuality]) -> list[Row]:
    """AUROC of the attention, and how often its peak is right."""
    rows: list[Row] = []
    for setting, quality in found.items():
        count = quality.descriptions
        rows += [
            interval_row(
                name, "attention", setting, "auroc", quality.auroc, chance=0.5, n_pos=count
            ),
            interval_row(
                name, "attention", setting, "peak", quality.peak, chance=quality.peak_chance,
                n_pos=count,
            ),
        ]  # fmt: skip
    return rows


def merged(analyses: Sequence[Analysis]) -> Analysis:
    """All of them as one."""
    whole = Analysis()
    for found in analyses:
        whole.rows += found.rows
        whole.notes += found.notes
        whole.curves |= found.curves
    return whole
