"""The full probe never sees the patient it scores, neither in fitting nor in choosing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from endoclip_jax.errors import UserError
from endoclip_jax.evaluation.folds import patient_folds
from endoclip_jax.evaluation.linear_probe import GRID, cross_validated, transferred
from endoclip_jax.evaluation.statistics import auroc


@settings(deadline=None, max_examples=30)
@given(st.integers(10, 40), st.integers(10, 40), st.integers(0, 20), st.integers(0, 99))
def test_folds_hold_whole_patients_of_every_kind(negative, positive, mixed, seed):
    kinds = [[0, 0]] * negative + [[1]] * positive + [[0, 1, 0]] * mixed
    labels = np.concatenate([np.array(kind, bool) for kind in kinds])
    patients = np.repeat(np.arange(len(kinds)), [len(kind) for kind in kinds])
    folds = patient_folds(labels, patients, seed=seed)
    assert all(len(set(folds[patients == p])) == 1 for p in range(len(kinds)))
    for stratum in (
        range(negative),
        range(negative, negative + positive),
        range(negative + positive, len(kinds)),
    ):
        sizes = [sum(folds[patients == p][0] == fold for p in stratum) for fold in range(5)]
        assert max(sizes) - min(sizes) <= 1


def test_memorised_patients_do_not_help():
    """Features that name the patient, labels by patient: leaking would score near 1."""
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(60), 3)
    labels = (rng.random(60) < 0.5)[patients]
    features = rng.normal(size=(60, 40))[patients] + 0.01 * rng.normal(size=(180, 40))
    probe = cross_validated(features, labels, patients, seed=0)
    assert abs(auroc(probe.scores, labels) - 0.5) < 0.15
    assert len(probe.chosen) == 5 and set(probe.chosen) <= set(GRID)


def test_a_signal_is_learnt_within_and_across_sets():
    rng = np.random.default_rng(1)
    labels, patients = np.arange(160) % 4 == 0, np.arange(160) // 2
    features = rng.normal(size=(160, 8)) + 3 * labels[:, None] * np.eye(8)[0]
    assert auroc(cross_validated(features, labels, patients, seed=0).scores, labels) > 0.9
    half = patients < 40
    other = transferred(features[half], labels[half], patients[half], features[~half], seed=0)
    assert auroc(other.scores, labels[~half]) > 0.9


def test_too_few_patients_is_a_clear_error():
    with pytest.raises(UserError, match="cannot all hold both classes"):
        cross_validated(np.eye(4), np.arange(4) > 2, np.arange(4), seed=0)
