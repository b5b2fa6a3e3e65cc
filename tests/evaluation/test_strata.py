"""Strata: polyps of one value against its negatives, and against those that have no value."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from endoclip_jax.evaluation.strata import absent, strata, stratum_rows


def test_negatives_without_a_value_belong_to_every_stratum():
    values = np.array(["small", "large", "", "", "small"])
    labels = np.array([1, 1, 0, 1, 0])
    found = {name: rows.tolist() for name, rows in strata(values, labels)}
    assert found == {"large": [1, 2], "small": [0, 2, 4]}


def test_rows_are_those_of_the_part_and_few_samples_are_said():
    rng = np.random.default_rng(0)
    labels = np.arange(90) % 3 == 0
    values = np.where(labels, np.where(np.arange(90) < 60, "small", "large"), "")
    values[0] = "giant"
    scores = rng.normal(size=90) + labels * (values == "small")
    rows, notes = stratum_rows(
        "m", "detection", "zero-shot", "size_class", values, scores, labels, np.arange(90),
        seed=0, draws=20,
    )  # fmt: skip
    by_name = {(row.setting, row.metric): row for row in rows}
    for name in ("small", "large"):
        part = (values == name) | (values == "")
        row = by_name[f"zero-shot, size_class {name}", "auroc"]
        assert row.value == pytest.approx(roc_auc_score(labels[part], scores[part]))
        assert row.n_neg == 60
    assert by_name["zero-shot, size_class giant", "auroc"].value is None
    assert len(notes) == 1 and notes[0].endswith("not judged: giant (1 and 60)")


def test_absent_columns():
    assert absent(["imaging"]) == ["segment", "size_class"]
