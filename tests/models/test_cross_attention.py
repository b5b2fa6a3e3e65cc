"""Cross-attention against the ragged float64 oracle; padding, masks, leakage of the pairing."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import cross_attention as oracle

from endoclip_jax.errors import UserError
from endoclip_jax.models.cross_attention import CrossAttention

DIM = 6


def unit_rows(rng: np.random.Generator, *shape: int) -> np.ndarray:
    x = rng.normal(size=shape)
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def patients(seed: int, images: list[int], texts: list[int]):
    """Ragged lists, and the same padded with junk to 5 and 4: ``(v, v_mask, t, t_mask)``."""
    rng = np.random.default_rng(seed)
    ragged = [unit_rows(rng, n, DIM) for n in images], [unit_rows(rng, n, DIM) for n in texts]
    padded: list[jax.Array] = []
    for rows, length in zip(ragged, (5, 4), strict=True):
        values = rng.normal(size=(len(rows), length, DIM)).astype(np.float32)
        mask = np.zeros((len(rows), length), bool)
        for i, x in enumerate(rows):
            values[i, : len(x)], mask[i, : len(x)] = x, True
        padded += [jnp.asarray(values), jnp.asarray(mask)]
    return ragged, tuple(padded)


def random_params(seed: int, scale: float = 1.0) -> tuple[dict, oracle.Weights]:
    """Flax parameters away from the identity, and the oracle's matrices (transposed kernels)."""
    rng = np.random.default_rng(seed)
    params: dict = {}
    weights: oracle.Weights = {}
    for direction in ("image_to_text", "text_to_image"):
        params[direction], weights[direction] = {}, {}
        for name in ("query", "key", "value"):
            kernel = np.eye(DIM) + scale * rng.normal(size=(DIM, DIM)) / 2
            kernel = kernel.astype(np.float32)
            params[direction][name] = {"kernel": jnp.asarray(kernel)}
            weights[direction][name] = kernel.astype(np.float64).T
    return {"params": params}, weights


@functools.cache
def jitted(mode: str = "literal", method: str = "__call__", **options):
    return jax.jit(functools.partial(CrossAttention(DIM, mode, **options).apply, method=method))


def as_float64(ragged: tuple) -> tuple:
    return tuple([x.astype(np.float64) for x in rows] for rows in ragged)


def test_starts_as_the_identity():
    _, padded = patients(0, [2, 3], [1, 2])
    model = CrossAttention(DIM)
    params = jax.jit(functools.partial(model.init, method="similarity"))(jax.random.key(0), *padded)
    leaves = jax.tree.leaves(params)
    assert len(leaves) == 6
    for leaf in leaves:
        np.testing.assert_array_equal(leaf, np.eye(DIM))


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 1000),
    sizes=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 4)), min_size=3, max_size=3),
    options=st.sampled_from([{}, {"residual": True}, {"qk_norm": False}]),
)
def test_every_mode_equals_the_oracle(seed, sizes, options):
    images, texts = [k for k, _ in sizes], [n for _, n in sizes]
    ragged, padded = patients(seed, images, texts)
    params, weights = random_params(seed)

    literal = jitted("literal", **options)(params, *padded)
    expected = oracle.patient_vectors(*as_float64(ragged), weights, **options)
    for got, want in zip(literal, expected, strict=True):
        np.testing.assert_allclose(got, want, atol=2e-5)
    similarity = jitted("literal", "similarity", **options)(params, *padded)
    np.testing.assert_allclose(similarity, expected[0] @ expected[1].T, atol=2e-5)

    got = jitted("pairwise", "similarity", **options)(params, *padded)
    want = oracle.pairwise_similarity(*as_float64(ragged), weights, **options)
    np.testing.assert_allclose(got, want, atol=2e-5)

    averaged = jitted("none", **options)({}, *padded)
    expected = oracle.patient_vectors(*as_float64(ragged), weights, attention=False)
    for got, want in zip(averaged, expected, strict=True):
        np.testing.assert_allclose(got, want, atol=2e-5)


def test_gradients_equal_central_differences_of_the_oracle():
    ragged, padded = patients(4, [3, 2], [2, 1])
    params, weights = random_params(4)
    weight = np.random.default_rng(9).normal(size=(2, 2))
    v, v_mask, t, t_mask = padded
    for mode in ("literal", "pairwise"):

        def score(params, v, t, mode=mode):
            cosines = jitted(mode, "similarity")(params, v, v_mask, t, t_mask)
            return jnp.sum(jnp.asarray(weight, jnp.float32) * cosines)

        by_params, by_v, by_t = jax.jit(jax.grad(score, argnums=(0, 1, 2)))(params, v, t)

        def exact(images, texts, weights, mode=mode):
            if mode == "pairwise":
                return float(np.sum(weight * oracle.pairwise_similarity(images, texts, weights)))
            v_hat, t_hat = oracle.patient_vectors(images, texts, weights)
            return float(np.sum(weight * (v_hat @ t_hat.T)))

        images, texts = as_float64(ragged)
        for array, gradient, where in (
            (images[0], by_v[0], (2, 1)),
            (texts[0], by_t[0], (1, 3)),
            (images[1], by_v[1], (0, 0)),
            *(
                (weights[direction][name], by_params["params"][direction][name]["kernel"].T, (1, 4))
                for direction in weights
                for name in ("query", "key", "value")
            ),
        ):
            values = []
            for step in (1e-5, -2e-5):
                array[where] += step
                values.append(exact(images, texts, weights))
            array[where] += 1e-5
            slope = (values[0] - values[1]) / 2e-5
            np.testing.assert_allclose(gradient[where], slope, rtol=1e-3, atol=2e-5)
        assert not np.any(np.asarray(by_v)[~np.asarray(v_mask)])
        assert not np.any(np.asarray(by_t)[~np.asarray(t_mask)])


@pytest.mark.parametrize("mode", ["literal", "pairwise", "none"])
def test_padding_never_matters(mode):
    params, _ = random_params(1)
    similarity = jitted(mode, "similarity")
    _, (v, v_mask, t, t_mask) = patients(1, [3, 1, 2], [2, 2, 1])
    base = similarity(params, v, v_mask, t, t_mask)
    other_v = jnp.where(v_mask[..., None], v, 1e30)
    other_t = jnp.where(t_mask[..., None], t, -777.0)
    other = similarity(params, other_v, v_mask, other_t, t_mask)
    np.testing.assert_array_equal(other, base)
    further = similarity(
        params,
        jnp.pad(v, ((0, 0), (0, 5), (0, 0)), constant_values=3.0),
        jnp.pad(v_mask, ((0, 0), (0, 5))),
        jnp.pad(t, ((0, 0), (0, 4), (0, 0)), constant_values=3.0),
        jnp.pad(t_mask, ((0, 0), (0, 4))),
    )
    np.testing.assert_allclose(further, base, atol=1e-6)


@pytest.mark.parametrize("mode", ["literal", "pairwise", "none"])
def test_a_patient_without_images_or_texts_is_finite_and_alone(mode):
    params, _ = random_params(2)
    similarity = jitted(mode, "similarity")
    _, (v, v_mask, t, t_mask) = patients(2, [2, 2, 3], [2, 1, 2])
    empty_v, empty_t = v_mask.at[1].set(False), t_mask.at[1].set(False)

    def total(params, v, t):
        cosines = similarity(params, v, empty_v, t, empty_t)
        return jnp.sum(cosines**2), cosines

    step = jax.jit(jax.value_and_grad(total, (0, 1, 2), has_aux=True))
    (_, cosines), gradients = step(params, v, t)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((cosines, gradients)))
    assert not np.any(gradients[1][1]) and not np.any(gradients[2][1])
    full = similarity(params, v, v_mask, t, t_mask)
    keep = np.ix_([0, 2], [0, 2])
    np.testing.assert_allclose(np.asarray(cosines)[keep], np.asarray(full)[keep], atol=1e-6)


def test_one_image_and_one_text_reduce_to_the_value_projections():
    params, _ = random_params(6)
    _, padded = patients(6, [1, 1, 1], [1, 1, 1])
    v, _, t, _ = padded
    rows_are_texts = jitted("literal", "similarity")(params, *padded)
    rows_are_images = jitted("pairwise", "similarity")(params, *padded)
    np.testing.assert_allclose(rows_are_texts, rows_are_images.T, atol=1e-6)
    image = jitted("literal", "project_image")(params, v[:, 0])
    text = jitted("literal", "project_text")(params, t[:, 0])
    np.testing.assert_allclose(image @ text.T, rows_are_images, atol=1e-6)
    np.testing.assert_allclose(jitted("none", "project_image")({}, v[:, 0]), v[:, 0], atol=1e-6)
    np.testing.assert_allclose(jitted("none", "project_text")({}, t[:, 0]), t[:, 0], atol=1e-6)


def test_attention_weights_for_plots():
    ragged, padded = patients(3, [3, 1], [2, 1])
    params, weights = random_params(3)
    got = jitted("literal", "attention_weights")(params, *padded)
    for i, (v, t) in enumerate(zip(*as_float64(ragged), strict=True)):
        _, image_to_text = oracle.attend(v, t, weights["image_to_text"], True)
        _, text_to_image = oracle.attend(t, v, weights["text_to_image"], True)
        k, n = len(v), len(t)
        np.testing.assert_allclose(got.image_to_text[i, :k, :n], image_to_text, atol=1e-5)
        np.testing.assert_allclose(got.text_to_image[i, :n, :k], text_to_image, atol=1e-5)
    np.testing.assert_allclose(got.image_to_text.sum(-1), padded[1], atol=1e-6)
    np.testing.assert_allclose(got.text_to_image.sum(-1), padded[3], atol=1e-6)


def matching_rate(mode: str, **options) -> float:
    """How often 8 patients of unrelated random features are matched (chance: 1/8)."""
    rng = np.random.default_rng(0)
    hits = []
    model = CrossAttention(512, mode, **options)
    everything = jnp.ones((8, 14), bool), jnp.ones((8, 3), bool)

    @jax.jit
    def similarity(*arguments):
        params = model.init(jax.random.key(0), *arguments, method="similarity")
        return model.apply(params, *arguments, method="similarity")

    for _ in range(30):
        v = jnp.asarray(unit_rows(rng, 8, 14, 512))
        t = jnp.asarray(unit_rows(rng, 8, 3, 512))
        arguments = v, everything[0], t, everything[1]
        cosines = np.asarray(similarity(*arguments))
        hits.append(np.mean(cosines.argmax(axis=1) == np.arange(8)))
    return float(np.mean(hits))


def test_pairwise_attention_cannot_see_the_pairing_and_a_residual_gives_it_away():
    assert matching_rate("pairwise") < 0.22
    assert matching_rate("literal") > 0.28
    assert matching_rate("literal", qk_norm=False) < 0.22
    assert matching_rate("literal", residual=True) == 1.0


def test_misuse_is_named():
    _, padded = patients(0, [1], [1])
    params, _ = random_params(0)
    with pytest.raises(UserError, match="diagonal"):
        CrossAttention(DIM, "diagonal").apply(params, *padded)
    with pytest.raises(ValueError, match="similarity"):
        CrossAttention(DIM, "pairwise").apply(params, *padded)
    with pytest.raises(ValueError, match="no attention weights"):
        CrossAttention(DIM, "none").apply({}, *padded, method="attention_weights")
