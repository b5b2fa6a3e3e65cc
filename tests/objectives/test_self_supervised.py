"""The objectives of DINO and SSCD against float64 loops: values, gradients, padding, devices."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import copy_detection as sscd_oracle
from reference import distillation as dino_oracle

from endoclip_jax.objectives.copy_detection import copy_detection_loss, partners, share_kept
from endoclip_jax.objectives.distillation import (
    distillation_loss,
    momentum_at,
    moved_towards,
    teacher_temperature_at,
)
from endoclip_jax.training.sharding import data_mesh, over_data

ROWS, PADDED, VIEWS, PROTOTYPES = 5, 8, 4, 7
TAU_S, TAU_T = 0.1, 0.04
VALID = np.arange(PADDED) < ROWS


def padded(rows: np.ndarray) -> np.ndarray:
    """Rows of nonsense behind the real ones."""
    filler = np.full((PADDED - ROWS, *rows.shape[1:]), 0.7)
    return np.concatenate([rows, filler]).astype(np.float32)


def outputs(views: int, seed: int) -> np.ndarray:
    """Cosines, as heads give them."""
    values = np.random.default_rng(seed).normal(size=(ROWS, views, PROTOTYPES)) * 0.3
    return np.tanh(values).astype(np.float32).astype(np.float64)


@jax.jit
def dino_loss(student, teacher, centre, valid):
    return distillation_loss(
        student, teacher, centre, student_temperature=TAU_S, teacher_temperature=TAU_T, valid=valid
    )


def test_distillation_equals_the_loops_over_padding_and_devices():
    student, teacher = outputs(VIEWS, 0), outputs(2, 1)
    centre = np.random.default_rng(2).normal(size=PROTOTYPES) * 0.1
    wanted = dino_oracle.distillation(student, teacher, centre, TAU_S, TAU_T)
    rows = over_data(data_mesh())
    given = [jax.device_put(x, rows) for x in (padded(student), padded(teacher), VALID)]
    both = jax.value_and_grad(dino_loss, argnums=(0, 1, 2), has_aux=True)
    (loss, terms), gradients = both(given[0], given[1], centre.astype(np.float32), given[2])
    np.testing.assert_allclose(loss, wanted["loss"], rtol=2e-5)
    for name, value in terms.items():
        np.testing.assert_allclose(value, wanted[name], rtol=2e-4, atol=1e-6, err_msg=name)
    np.testing.assert_allclose(gradients[0][:ROWS], wanted["gradient"], rtol=1e-4, atol=1e-6)
    assert not np.any(gradients[0][ROWS:]) and not np.any(gradients[1]) and not np.any(gradients[2])


def test_collapse_shows_in_the_terms():
    """All alike: entropy at log K; one prototype for all: both entropies at 0; excess 0 in both."""
    for peak, (entropy, marginal) in {0.0: (np.log(PROTOTYPES),) * 2, 1.0: (0.0, 0.0)}.items():
        same = np.zeros((PADDED, VIEWS, PROTOTYPES), np.float32)
        same[..., 3] = peak * 10
        _, terms = dino_loss(same, same[:, :2], np.zeros(PROTOTYPES, np.float32), VALID)
        np.testing.assert_allclose(terms["entropy"], entropy, atol=1e-5)
        np.testing.assert_allclose(terms["marginal_entropy"], marginal, atol=1e-5)
        np.testing.assert_allclose(terms["excess"], 0, atol=1e-5)


def test_schedules_and_moving_average():
    for updates in (0, 3, 10):
        wanted = dino_oracle.teacher_momentum(updates, 10, 0.9)
        np.testing.assert_allclose(momentum_at(jnp.float32(updates), 10, 0.9), wanted, rtol=1e-6)
    temperatures = [float(teacher_temperature_at(jnp.float32(n), 4, 0.04, 0.08)) for n in (0, 1, 9)]
    np.testing.assert_allclose(temperatures, [0.04, 0.05, 0.08], rtol=1e-6)
    assert float(teacher_temperature_at(jnp.float32(0), 0, 0.04, 0.04)) == pytest.approx(0.04)
    np.testing.assert_allclose(moved_towards(jnp.ones(2), jnp.zeros(2), 0.75), 0.75)


def descriptors() -> tuple[np.ndarray, np.ndarray]:
    """Two views of five rows, two of them mixed: units `[10, 6]` and what each holds `[10, 5]`."""
    rng = np.random.default_rng(4)
    z = rng.normal(size=(2 * ROWS, 6))
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    contents = np.repeat(np.eye(ROWS), 2, axis=0)
    contents[0] = [0.7, 0.3, 0, 0, 0]
    contents[5] = [0, 0, 0.4, 0.6, 0]
    return z, contents


def test_copy_detection_equals_the_loops():
    z, contents = descriptors()
    tau, weight = 0.2, 3.0
    wanted = sscd_oracle.copy_detection(z, contents, tau, weight)
    slope = sscd_oracle.gradient(z, contents, tau, weight)
    valid = np.arange(16) < 10
    rows = over_data(data_mesh())
    wide = [np.concatenate([x, np.tile(x[:1], (6, 1))]).astype(np.float32) for x in (z, contents)]
    given = [jax.device_put(x, rows) for x in (*wide, valid)]

    def loss(z, contents, valid):
        return copy_detection_loss(z, contents, temperature=tau, entropy_weight=weight, valid=valid)

    (value, terms), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(*given)
    np.testing.assert_allclose(value, wanted["loss"], rtol=1e-5)
    for name in ("info_nce", "differential_entropy"):
        np.testing.assert_allclose(terms[name], wanted[name], rtol=1e-5)
    np.testing.assert_allclose(gradient[:10], slope, rtol=1e-3, atol=1e-5)
    assert not np.any(gradient[10:])


def test_partners_are_the_next_valid_rows_wherever_padding_stands():
    valid = np.array([1, 1, 0, 1, 0, 1], bool)
    found = np.asarray(jax.jit(partners)(valid))
    assert found.sum(axis=1).tolist() == valid.astype(float).tolist()
    assert found.argmax(axis=1)[valid].tolist() == [1, 3, 5, 0]


def test_shares_are_a_beta_distribution():
    """Beta(2, 2): mean 1/2, variance 1/20, and 0.104 of it below 0.2 (3x^2 - 2x^3)."""
    lots = (np.arange(2000, dtype=np.float32)[:, None] + 0.5) / 2000
    kept = jax.jit(share_kept)
    shares = np.asarray(kept(np.zeros_like(lots), lots, 0.5))
    moments = [shares.mean(), shares.var(), (shares < 0.2).mean()]
    np.testing.assert_allclose(moments, [0.5, 0.05, 0.104], atol=1e-3)
    assert (np.asarray(kept(np.full_like(lots, 0.5), lots, 0.5)) == 1).all()
