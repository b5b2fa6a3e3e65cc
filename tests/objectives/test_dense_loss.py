"""The dense loss against the float64 oracle: values, gradients, masks, devices, identities."""

from __future__ import annotations

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from batches import OPTIONS, assert_is_the_oracle, random_batch, random_mask
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from reference import losses as oracle

from endoclip_jax.objectives.dense import contrastive_loss, similarity_loss, two_sentence_loss

SIZE = 8  # the same shapes everywhere: each is compiled once for an option


@cache
def jitted_loss(target, norm):
    def loss(v, t, scale, a_v, a_t, valid):
        return contrastive_loss(v, t, scale, a_v, a_t, target=target, target_norm=norm, valid=valid)

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))


def value_and_gradients(batch: dict, logit_scale: float, valid, target, norm):
    v, t, a_v, a_t = (jnp.asarray(batch[name]) for name in ("v", "t", "a_v", "a_t"))
    return jitted_loss(target, norm)(v, t, jnp.float32(logit_scale), a_v, a_t, valid)


jitted_two_sentence_loss = jax.jit(
    jax.value_and_grad(two_sentence_loss, argnums=(0, 1, 3), has_aux=True)
)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10_000),
    share=st.sampled_from([0.0, 0.6, 1.0]),
    logit_scale=st.floats(-1.0, 4.6),
    option=st.sampled_from(OPTIONS),
)
def test_value_and_gradients_equal_the_oracle(seed, share, logit_scale, option):
    """One patient, some and all of the eight are valid."""
    batch = random_batch(seed, SIZE)
    valid = random_mask(seed, SIZE, share)
    target, norm = option
    result = value_and_gradients(batch, logit_scale, jnp.asarray(valid), target, norm)
    assert_is_the_oracle(result, batch, np.float32(logit_scale), valid, target, norm)


def test_the_oracle_gradient_is_the_slope_of_its_value():
    batch = random_batch(3, 5)
    valid = np.array([True, True, False, True, True])
    for target, norm in OPTIONS:
        arguments = dict(valid=valid, target=target, norm=norm)
        v, t = batch["v"].astype(np.float64), batch["t"].astype(np.float64)
        attributes = batch["a_v"], batch["a_t"]
        exact = oracle.contrastive_loss(v, t, 1.5, *attributes, **arguments)
        for name, where in (("d_v", (1, 2)), ("d_t", (3, 0)), ("d_logit_scale", None)):
            step = np.zeros_like(v)
            if where is not None:
                step[where] = 1e-5
            values = []
            for sign in (1, -1):
                values.append(
                    oracle.contrastive_loss(
                        v + sign * step * (name == "d_v"),
                        t + sign * step * (name == "d_t"),
                        1.5 + sign * 1e-5 * (name == "d_logit_scale"),
                        *attributes,
                        **arguments,
                    )["loss"]
                )
            slope = (values[0] - values[1]) / 2e-5
            analytic = exact[name] if where is None else exact[name][where]
            np.testing.assert_allclose(slope, analytic, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("target", "norm"), OPTIONS)
def test_invalid_rows_contribute_nothing_whatever_they_hold(target, norm):
    batch = random_batch(11, SIZE)
    padded = {k: np.concatenate([x, np.full((SIZE, x.shape[1]), 9.0, np.float32)])
              for k, x in batch.items()}  # fmt: skip
    padded["v"][-1] = np.nan
    valid = jnp.arange(2 * SIZE) < SIZE
    (loss, metrics), gradients = value_and_gradients(padded, 2.0, valid, target, norm)
    (alone, alone_metrics), alone_gradients = value_and_gradients(
        batch, 2.0, jnp.ones(SIZE, bool), target, norm
    )
    np.testing.assert_allclose(loss, alone, rtol=1e-6)
    np.testing.assert_allclose(metrics["excess"], alone_metrics["excess"], rtol=1e-5)
    np.testing.assert_allclose(gradients[2], alone_gradients[2], rtol=1e-5, atol=1e-7)
    for got, expected in zip(gradients[:2], alone_gradients[:2], strict=True):
        np.testing.assert_allclose(got[:SIZE], expected, rtol=1e-5, atol=1e-7)
        assert not np.any(got[SIZE:])


def test_a_batch_without_a_valid_row_is_zero_with_zero_gradients():
    (loss, _), gradients = value_and_gradients(
        random_batch(0, SIZE), 2.0, jnp.zeros(SIZE, bool), "morphology", "l1"
    )
    assert loss == 0
    assert all(not np.any(gradient) for gradient in gradients)


def test_directions_are_not_interchangeable_and_rows_are_images():
    rng = np.random.default_rng(5)
    cosines = rng.uniform(-1, 1, (4, 4)).astype(np.float32)
    batch = random_batch(5, 4)
    expected = oracle.similarity_loss(cosines, 1.0, batch["a_v"], batch["a_t"], target="morphology")
    attributes = jnp.asarray(batch["a_v"]), jnp.asarray(batch["a_t"])
    scale = jnp.float32(1.0)

    @jax.jit
    def loss(matrix):
        return similarity_loss(matrix, scale, *attributes, target="morphology")[0]

    value, gradient = jax.value_and_grad(loss)(jnp.asarray(cosines))
    np.testing.assert_allclose(value, expected["loss"], rtol=1e-5)
    np.testing.assert_allclose(gradient, expected["d_cosines"], rtol=1e-4, atol=1e-6)
    assert abs(loss(jnp.asarray(cosines.T)) - value) > 1e-3


def test_the_temperature_is_not_clamped():
    batch = random_batch(1, 5)
    (_, _), (_, _, by_scale) = value_and_gradients(batch, 5.5, None, "onehot", "l1")
    expected = oracle.contrastive_loss(
        batch["v"], batch["t"], 5.5, batch["a_v"], batch["a_t"],
        valid=np.ones(5, bool), target="onehot",
    )  # fmt: skip
    np.testing.assert_allclose(by_scale, expected["d_logit_scale"], rtol=1e-4)


def test_unusable_targets_are_refused_by_name():
    batch = random_batch(0, 3)
    v, t = jnp.asarray(batch["v"]), jnp.asarray(batch["t"])
    with pytest.raises(ValueError, match="fuzzy"):
        contrastive_loss(v, t, jnp.float32(1), target="fuzzy")
    with pytest.raises(ValueError, match="needs the attributes"):
        contrastive_loss(v, t, jnp.float32(1), target="morphology")


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10_000),
    share=st.sampled_from([0.0, 0.6, 1.0]),
    logit_scale=st.floats(0.0, 4.6),
    kind=st.sampled_from(["both", "both", "only 0", "only 1"]),
)
def test_two_sentences_equal_gathered_texts(seed, share, logit_scale, kind):
    """Identity 1: value, and gradients of images, sentences and logit_scale."""
    size = 2 * SIZE
    batch = random_batch(seed, size)
    rng = np.random.default_rng(seed)
    sentences = rng.normal(size=(2, 7))
    sentences = (sentences / np.linalg.norm(sentences, axis=1, keepdims=True)).astype(np.float32)
    label = {"both": rng.integers(0, 2, size), "only 0": np.zeros(size), "only 1": np.ones(size)}
    label = label[kind].astype(np.int32)
    valid = rng.random(size) < share
    valid[0] = True

    (value, metrics), (by_v, by_sentence, by_scale) = jitted_two_sentence_loss(
        jnp.asarray(batch["v"]), jnp.asarray(sentences), jnp.asarray(label),
        jnp.float32(logit_scale), jnp.asarray(valid),
    )  # fmt: skip

    one_hot_labels = np.eye(2)[label]
    for target in ("onehot", "multi_positive"):
        expected = oracle.contrastive_loss(
            batch["v"], sentences[label], float(np.float32(logit_scale)), one_hot_labels,
            one_hot_labels, valid=valid, target=target,
        )  # fmt: skip
        expected_by_sentence = np.stack([expected["d_t"][label == c].sum(axis=0) for c in (0, 1)])
        close = partial(np.testing.assert_allclose, rtol=3e-5, atol=3e-6 * np.exp(logit_scale))
        close(value, expected["loss"])
        close(by_v, expected["d_v"])
        close(by_sentence, expected_by_sentence)
        close(by_scale, expected["d_logit_scale"])
    close(metrics["entropy"], expected["entropy"])
    close(metrics["excess"], expected["loss"] - expected["entropy"])


@pytest.mark.parametrize(
    ("target", "norm", "devices"),
    [(*option, 8) for option in OPTIONS] + [("morphology", "l1", 2), ("morphology", "l1", 4)],
)
def test_any_number_of_devices_gives_the_global_loss(target, norm, devices):
    batch = {name: jnp.asarray(x) for name, x in random_batch(21, 2 * SIZE).items()}
    valid = jnp.arange(2 * SIZE) < 13

    step = jitted_loss(target, norm)
    arguments = (batch["v"], batch["t"], jnp.float32(3.0), batch["a_v"], batch["a_t"], valid)
    (one, _), one_gradients = jax.device_get(step(*arguments))
    mesh = jax.make_mesh(
        (devices,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices]
    )
    placed = [
        jax.device_put(x, NamedSharding(mesh, P("data") if x.ndim else P())) for x in arguments
    ]
    (many, _), many_gradients = jax.device_get(step(*placed))
    np.testing.assert_allclose(many, one, rtol=1e-6)
    for got, expected in zip(many_gradients, one_gradients, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-7)


def test_two_sentence_loss_on_eight_devices():
    batch = random_batch(8, 2 * SIZE)
    sentences = jnp.asarray(batch["t"][:2])
    label = jnp.asarray(np.arange(2 * SIZE) % 3 == 0, jnp.int32)
    valid = jnp.arange(2 * SIZE) < 13
    step = jitted_two_sentence_loss
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    v = jnp.asarray(batch["v"])
    alone = jax.device_get(step(v, sentences, label, jnp.float32(3.0), valid))
    v, label, valid = jax.device_put((v, label, valid), NamedSharding(mesh, P("data")))
    sentences, scale = jax.device_put((sentences, jnp.float32(3.0)), NamedSharding(mesh, P()))
    many = jax.device_get(step(v, sentences, label, scale, valid))
    for got, expected in zip(jax.tree.leaves(many), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-7)


def test_without_a_mask_everyone_is_valid():
    batch = {name: jnp.asarray(x) for name, x in random_batch(2, SIZE).items()}
    scale, everyone = jnp.float32(1.3), jnp.ones(SIZE, bool)
    label = jnp.arange(SIZE) % 2

    @jax.jit
    def losses(valid):
        return (
            contrastive_loss(
                batch["v"], batch["t"], scale, batch["a_v"], batch["a_t"],
                target="morphology", valid=valid,
            ),
            two_sentence_loss(batch["v"], batch["t"][:2], label, scale, valid),
        )  # fmt: skip

    for got, expected in zip(*map(jax.tree.leaves, map(losses, (None, everyone))), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_the_target_term_needs_no_square_matrix():
    """Identity 2: numerators and row sums from C_t and C_v, [A, D]; value and gradients."""
    batch = random_batch(4, 6, width=5)
    a_v, a_t = jnp.asarray(batch["a_v"]), jnp.asarray(batch["a_t"])
    v, t, scale = jnp.asarray(batch["v"]), jnp.asarray(batch["t"]), jnp.float32(1.7)

    def unit(a):
        length = jnp.linalg.norm(a, axis=1, keepdims=True)
        return a / jnp.where(length > 0, length, 1)

    def linear_memory(v, t, scale):
        u_v, u_t = unit(a_v), unit(a_t)
        missing = 1 - jnp.sum(u_v * u_t, axis=1)
        own = jnp.exp(scale) * jnp.sum(v * t, axis=1)
        logits = jnp.exp(scale) * v @ t.T
        total = 0.0
        for x, a, b, y, rows in ((v, u_v, u_t, t, logits), (t, u_t, u_v, v, logits.T)):
            numerator = jnp.exp(scale) * jnp.sum(x * (a @ (b.T @ y)), axis=1) + missing * own
            row_sum = a @ b.sum(axis=0) + missing
            total += jnp.mean(jax.nn.logsumexp(rows, axis=1) - numerator / row_sum)
        return total / 2

    step = jax.jit(jax.value_and_grad(linear_memory, argnums=(0, 1, 2)))
    value, gradients = step(v, t, scale)
    expected = oracle.contrastive_loss(
        batch["v"], batch["t"], float(scale), batch["a_v"], batch["a_t"],
        valid=np.ones(6, bool), target="morphology",
    )  # fmt: skip
    np.testing.assert_allclose(value, expected["loss"], rtol=1e-5)
    for gradient, name in zip(gradients, ("d_v", "d_t", "d_logit_scale"), strict=True):
        np.testing.assert_allclose(gradient, expected[name], rtol=1e-4, atol=1e-5)
