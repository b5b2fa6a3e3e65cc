"""Results by segment, size class and imaging mode: an average may hide where a model fails."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int, Shaped

from endoclip_jax.data.labelled import STRATA
from endoclip_jax.evaluation.results import Row, scored_rows
from endoclip_jax.evaluation.statistics import DRAWS, Groups, Labels

FEWEST = 5
"""Of each class: an AUROC of fewer has no meaning, and no interval."""


def strata(
    values: Shaped[np.ndarray, " n"], labels: Labels
) -> Iterator[tuple[str, Int[np.ndarray, " m"]]]:
    """Each value of a column with the samples it is judged on.

    Samples of the value itself, and all negatives whose cell is empty: a frame without a polyp has
    no size class, and is compared with the polyps of every class.
    """
    values, positive = np.asarray(values), np.asarray(labels).astype(bool)
    shared = (values == "") & ~positive
    for value in sorted(set(values.tolist()) - {""}):
        yield str(value), np.flatnonzero((values == value) | shared)


def stratum_rows(
    model: str,
    task: str,
    setting: str,
    column: str,
    values: Shaped[np.ndarray, " n"],
    scores: Float[np.ndarray, " n"],
    labels: Labels,
    patients: Groups,
    *,
    seed: int,
    draws: int = DRAWS,
) -> tuple[list[Row], list[str]]:
    """AUROC and AUPR rows of each value, settings as "zero-shot, size_class giant_ge20mm".

    Values with fewer than `FEWEST` samples of a class have a dash, and a note says so.
    """
    scores, labels = np.asarray(scores), np.asarray(labels).astype(bool)
    patients = np.asarray(patients)
    rows: list[Row] = []
    few: list[str] = []
    for value, chosen in strata(values, labels):
        name = f"{setting}, {column} {value}"
        positive, negative = int(labels[chosen].sum()), int((~labels[chosen]).sum())
        if min(positive, negative) < FEWEST:
            few.append(f"{value} ({positive} and {negative})")
            rows += [
                Row(model, task, name, metric, None, n_pos=positive, n_neg=negative)
                for metric in ("auroc", "aupr")
            ]
            continue
        rows += scored_rows(
            model, task, name, scores[chosen], labels[chosen], patients[chosen], seed, draws
        )
    notes = [
        f"{task} by {column}: fewer than {FEWEST} positives or negatives, so not judged: "
        f"{', '.join(few)}"
    ]
    return rows, notes if few else []


def absent(present: Sequence[str]) -> list[str]:
    """Which of the optional columns a set does not have."""
    return [column for column in STRATA if column not in present]
