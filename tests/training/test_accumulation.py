"""Accumulated gradients against those of the whole batch: exact, by any parts, on eight devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from endoclip_jax.objectives.dense import contrastive_loss
from endoclip_jax.objectives.streaming import streaming_loss
from endoclip_jax.training.accumulation import in_parts
from endoclip_jax.training.sharding import data_mesh, replicate, shard_batch

ROWS, WIDTH, DIM = 32, 5, 4


def material(dtype):
    rng = np.random.default_rng(0)
    params = {
        "image": rng.normal(size=(WIDTH, DIM)),
        "text": rng.normal(size=(WIDTH, DIM)),
        "logit_scale": np.asarray(2.0),
    }
    batch = {
        "image": rng.normal(size=(ROWS, WIDTH)),
        "text": rng.normal(size=(ROWS, WIDTH)),
        "bits": (rng.random((ROWS, 6)) < 0.4).astype(np.float64),
    }
    params, batch = jax.tree.map(lambda x: x.astype(dtype), (params, batch))
    return params, batch | {"valid": np.arange(ROWS) < 29}


def embed(params, batch):
    def unit(x):
        return x / jnp.linalg.norm(x, axis=1, keepdims=True)

    return {name: unit(jnp.tanh(batch[name] @ params[name])) for name in ("image", "text")}


def contrast_by(loss):
    def contrast(params, features, batch):
        return loss(
            features["image"], features["text"], params["logit_scale"], batch["bits"],
            batch["bits"], target="morphology", target_norm=("power", 4.0), valid=batch["valid"],
        )  # fmt: skip

    return contrast


def whole(contrast):
    def loss(params, batch):
        return contrast(params, embed(params, batch), batch)

    return jax.jit(jax.value_and_grad(loss, has_aux=True))


def gradient_in(parts, contrast):
    return jax.jit(jax.value_and_grad(in_parts(embed, contrast, parts=parts), has_aux=True))


def assert_close(got, wanted, rtol, atol):
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(one, other, rtol=rtol, atol=atol)


def test_eight_parts_are_the_whole_batch_to_1e_12_in_float64():
    contrast = contrast_by(contrastive_loss)
    with jax.enable_x64(True):
        params, batch = material(np.float64)
        expected = jax.device_get(whole(contrast)(params, batch))
        got = jax.device_get(gradient_in(8, contrast)(params, batch))
    assert all(x.dtype == np.float64 for x in jax.tree.leaves(got[1]))
    assert_close(got, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("parts", [8, 5])
def test_parts_of_a_batch_on_eight_devices(parts):
    """Streaming loss; all negatives count; five parts do not divide the batch."""
    mesh = data_mesh()
    contrast = contrast_by(streaming_loss(mesh, tile=3))
    params, batch = material(np.float32)
    by_whole = whole(contrast_by(contrastive_loss))
    expected = jax.device_get(by_whole(params, batch))
    placed = replicate(params, mesh), shard_batch(batch, mesh)
    got = jax.device_get(gradient_in(parts, contrast)(*placed))
    assert_close(got, expected, rtol=1e-5, atol=1e-6)
    value, terms = jax.jit(in_parts(embed, contrast, parts=parts))(*placed)  # as in validation
    assert_close((value, terms), expected[0], rtol=1e-5, atol=1e-6)
    # What averaging the parts' own gradients would give is far from it.
    alone = [by_whole(params, {k: x[p::parts] for k, x in batch.items()}) for p in range(parts)]
    averaged = np.mean([one[1]["image"] for one in alone], axis=0)
    assert np.abs(averaged - expected[1]["image"]).max() > 1e-3
