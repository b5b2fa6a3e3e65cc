"""What the backward pass computes again changes no number."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from endoclip_jax.errors import UserError
from endoclip_jax.models.clip import CLIP, CLIPConfig, TextConfig, VisionConfig, initial_params

CONFIG = CLIPConfig(
    vision=VisionConfig(image_size=16, patch_size=8, width=16, layers=2, heads=2),
    text=TextConfig(width=12, layers=1, heads=2, vocab_size=50, context_length=10),
    embed_dim=8,
)


def loss_with(remat):
    rng = np.random.default_rng(0)
    pixels = rng.normal(size=(3, 16, 16, 3)).astype(np.float32)
    ids = rng.integers(1, 49, (3, 6)).astype(np.int32)
    ids[:, 4] = 49  # EOT

    def loss(params):
        v, t, scale = CLIP(CONFIG, remat=remat).apply(
            {"params": params}, jnp.asarray(pixels), jnp.asarray(ids)
        )
        return jnp.sum(jnp.sin(3 * v @ t.T)) * scale

    return loss


def value_and_gradient(remat, params):
    return jax.jit(jax.value_and_grad(loss_with(remat)))(params)


def test_remat_keeps_parameters_values_and_gradients():
    params = initial_params(CLIP(CONFIG), 0)
    value, gradient = value_and_gradient("none", params)
    other = initial_params(CLIP(CONFIG, remat="full"), 0)
    assert jax.tree.structure(other) == jax.tree.structure(params)
    other_value, other_gradient = value_and_gradient("full", params)
    np.testing.assert_allclose(other_value, value, rtol=1e-6)
    for got, wanted in zip(jax.tree.leaves(other_gradient), jax.tree.leaves(gradient), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


def test_less_is_kept_for_the_backward_pass():
    params = initial_params(CLIP(CONFIG), 0)

    def kept(remat):
        pull = jax.eval_shape(lambda params: jax.vjp(loss_with(remat), params)[1], params)
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(pull))

    assert kept("full") < 0.6 * kept("none")
    assert kept("full") < kept("dots") < 0.9 * kept("none")


def test_an_unknown_policy_is_refused():
    with pytest.raises(UserError, match="none, dots, full"):
        initial_params(CLIP(CONFIG, remat="some"), 0)
