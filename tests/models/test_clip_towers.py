"""The towers against the float64 oracle, CLIP's details, sizes, and text padding."""

from __future__ import annotations

import dataclasses
import functools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import towers as oracle

from endoclip_jax.errors import UserError
from endoclip_jax.models import layers
from endoclip_jax.models.clip import CLIP, DEMO, VIT_B32, CLIPConfig, TextConfig, VisionConfig
from endoclip_jax.models.vit import PatchEmbedding

TINY = CLIPConfig(
    vision=VisionConfig(image_size=12, patch_size=4, width=8, layers=2, heads=2),
    text=TextConfig(width=12, layers=2, heads=3, vocab_size=30, context_length=9),
    embed_dim=5,
)
IDS = np.array(
    [[27, 4, 9, 29, 0, 0, 0], [27, 29, 0, 0, 0, 0, 0], [27, 1, 2, 3, 4, 5, 29]], np.int32
)


def pixels(count: int = 2, size: int = 12) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, size, size, 3)).astype(np.float32)


def random_params(config: CLIPConfig, seed: int = 1) -> dict:
    """Every parameter away from its initial value, biases and norms too."""
    abstract = jax.eval_shape(
        CLIP(config).init,
        jax.random.key(0),
        jnp.zeros((1, config.vision.image_size, config.vision.image_size, 3)),
        jnp.zeros((1, 4), jnp.int32),
    )
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: jnp.asarray(0.5 * rng.normal(size=leaf.shape), jnp.float32), abstract
    )


@functools.cache
def jitted(config: CLIPConfig, method: str = "__call__", dtype=jnp.float32):
    return jax.jit(functools.partial(CLIP(config, dtype=dtype).apply, method=method))


@functools.cache
def initial_demo_params() -> dict:
    size = DEMO.vision.image_size
    return jax.jit(CLIP(DEMO).init)(
        jax.random.key(0), jnp.zeros((1, size, size, 3)), jnp.zeros((1, 16), jnp.int32)
    )


def as_float64(params: dict) -> dict:
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["params"])


def test_gradient_of_standardizing_equals_differences_in_float64():
    rng = np.random.default_rng(3)
    x, weights = rng.normal(2, 3, (2, 4, 7))
    weighted = jax.grad(lambda x: jnp.sum(weights * layers.standardize(x, 1e-2)))

    def exact(x):
        centred = x - x.mean(-1, keepdims=True)
        return np.sum(weights * centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-2))

    steps = 1e-5 * np.eye(x.size).reshape(-1, *x.shape)
    wanted = np.reshape([(exact(x + h) - exact(x - h)) / 2e-5 for h in steps], x.shape)
    np.testing.assert_allclose(weighted(jnp.asarray(x, jnp.float32)), wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_towers_equal_the_oracle(activation):
    config = dataclasses.replace(TINY, activation=activation)
    params = random_params(config)
    images = pixels()
    v, t, logit_scale = jitted(config)(params, jnp.asarray(images), jnp.asarray(IDS))
    exact = as_float64(params)
    for i, image in enumerate(images.astype(np.float64)):
        expected = oracle.image_feature(image, exact["vision"], config.to_dict())
        np.testing.assert_allclose(v[i], expected, atol=1e-5)
    for i, ids in enumerate(IDS.tolist()):
        expected = oracle.text_feature(ids, exact["text"], config.to_dict())
        np.testing.assert_allclose(t[i], expected, atol=1e-5)
    assert logit_scale == params["params"]["logit_scale"]


def test_image_gradient_equals_central_differences_of_the_oracle():
    params = random_params(TINY)
    image = pixels(1)
    weight = np.random.default_rng(5).normal(size=5)

    def score(params):
        v = jitted(TINY, "encode_image")(params, jnp.asarray(image))
        return jnp.sum(v[0] * jnp.asarray(weight, jnp.float32))

    gradient = jax.jit(jax.grad(score))(params)["params"]["vision"]
    exact = as_float64(params)["vision"]
    for path, where in (
        (("patch_embedding", "kernel"), (1, 2, 0, 3)),
        (("class_embedding",), (2,)),
        (("position_embedding",), (4, 1)),
        (("block_0", "attention", "qkv", "kernel"), (3, 20)),
        (("block_1", "attention", "qkv", "kernel"), (3, 2)),
        (("block_1", "attention", "qkv", "bias"), (20,)),
        (("block_1", "down", "kernel"), (5, 5)),
        (("post_norm", "scale"), (1,)),
    ):
        array, got = exact, gradient
        for name in path:
            array, got = array[name], got[name]
        values = []
        for step in (1e-5, -2e-5):
            array[where] += step
            feature = oracle.image_feature(image[0].astype(np.float64), exact, TINY.to_dict())
            values.append(float(feature @ weight))
        array[where] += 1e-5
        slope = (values[0] - values[1]) / 2e-5
        np.testing.assert_allclose(got[where], slope, rtol=2e-3, atol=2e-5)


def test_text_padding_and_length_change_nothing():
    params = random_params(TINY)

    def encode(ids):
        return jitted(TINY, "encode_text")(params, jnp.asarray(ids))

    base = encode(IDS)
    np.testing.assert_allclose(encode(np.pad(IDS, ((0, 0), (0, 2)))), base, atol=1e-6)
    np.testing.assert_allclose(encode(IDS[:2, :4]), base[:2], atol=1e-6)
    other = np.where((IDS == 0) & (np.arange(7) > 1), 29, IDS)  # EOT repeated as padding
    np.testing.assert_array_equal(encode(other), base)


def test_too_long_texts_and_wrong_images_are_refused():
    params = random_params(TINY)
    with pytest.raises(ValueError, match="exceed the context of 9"):
        jitted(TINY, "encode_text")(params, jnp.zeros((1, 10), jnp.int32))
    with pytest.raises(ValueError, match=r"\(12, 12, 3\)"):
        jitted(TINY, "encode_image")(params, jnp.zeros((1, 16, 16, 3)))


def test_activation_and_epsilon_are_clips_and_not_the_librarys():
    x = jnp.linspace(-4, 4, 41)
    np.testing.assert_allclose(layers.quick_gelu(x), oracle.quick_gelu(np.asarray(x)), atol=1e-6)
    np.testing.assert_allclose(layers.exact_gelu(x), oracle.gelu(np.asarray(x)), atol=1e-6)
    assert np.abs(layers.quick_gelu(x) - jax.nn.gelu(x)).max() > 0.01
    assert np.abs(layers.exact_gelu(x) - jax.nn.gelu(x)).max() > 1e-4
    assert VIT_B32.activation == DEMO.activation == "quick_gelu"
    assert VIT_B32.layer_norm_eps == DEMO.layer_norm_eps == 1e-5
    nearly_flat = jnp.asarray([[1e-3, -1e-3, 1e-3, -1e-3]])
    norm = layers.LayerNorm(1e-5)
    got = norm.apply(norm.init(jax.random.key(0), nearly_flat), nearly_flat)
    np.testing.assert_allclose(got, nearly_flat / math.sqrt(1e-6 + 1e-5), rtol=1e-5)


def test_patch_embedding_is_the_convolution():
    module = PatchEmbedding(4, 6)
    images = jnp.asarray(pixels())
    params = module.init(jax.random.key(0), images)
    convolved = jax.lax.conv_general_dilated(
        images, params["params"]["kernel"], (4, 4), "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"), precision=jax.lax.Precision.HIGHEST,
    )  # fmt: skip
    np.testing.assert_allclose(
        module.apply(params, images), convolved.reshape(2, 9, 6), rtol=1e-5, atol=1e-5
    )


def test_vit_b32_has_clips_parameter_count():
    abstract = jax.eval_shape(
        CLIP(VIT_B32).init,
        jax.random.key(0),
        jnp.zeros((1, 224, 224, 3)),
        jnp.zeros((1, 77), jnp.int32),
    )["params"]
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(abstract)) == 151_277_313
    assert set(abstract) == {"vision", "text", "logit_scale"}
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(abstract))


def test_embeddings_start_unit_spread_and_at_clips_temperature():
    images = pixels(4, DEMO.vision.image_size)
    ids = np.zeros((4, 16), np.int32)
    ids[:, 0], ids[:, 1:5], ids[:, 5] = (
        49406,
        np.random.default_rng(1).integers(1, 9999, (4, 4)),
        49407,
    )
    params = initial_demo_params()
    v, t, logit_scale = jitted(DEMO)(params, jnp.asarray(images), jnp.asarray(ids))
    for embeddings in (v, t):
        np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)
        cosines = np.asarray(embeddings @ embeddings.T)[np.triu_indices(4, 1)]
        assert cosines.max() < 0.9999
    np.testing.assert_allclose(logit_scale, math.log(1 / 0.07), rtol=1e-6)


def test_initial_spread_follows_clips_scheme():
    params = initial_demo_params()["params"]
    width, depth = DEMO.vision.width, DEMO.vision.layers
    block = params["vision"]["block_1"]
    for kernel, expected in (
        (block["attention"]["qkv"]["kernel"], width**-0.5),
        (block["attention"]["out"]["kernel"], width**-0.5 * (2 * depth) ** -0.5),
        (block["up"]["kernel"], (2 * width) ** -0.5),
        (block["down"]["kernel"], width**-0.5 * (2 * depth) ** -0.5),
        (params["text"]["token_embedding"], 0.02),
        (params["text"]["position_embedding"], 0.01),
    ):
        np.testing.assert_allclose(np.std(kernel), expected, rtol=0.05)
    bound = (3 * DEMO.vision.patch_size**2) ** -0.5
    patches = np.asarray(params["vision"]["patch_embedding"]["kernel"])
    assert 0.98 * bound < np.abs(patches).max() <= bound
    assert not np.any(block["up"]["bias"])


def test_bfloat16_compute_keeps_float32_parameters_and_embeddings():
    params = random_params(TINY)
    images, ids = jnp.asarray(pixels()), jnp.asarray(IDS)
    exact = jitted(TINY)(params, images, ids)
    rounded = jitted(TINY, dtype=jnp.bfloat16)(params, images, ids)
    for got, expected in zip(rounded[:2], exact[:2], strict=True):
        assert got.dtype == jnp.float32
        np.testing.assert_allclose(got, expected, atol=0.1)
        assert np.abs(got - expected).max() > 1e-4


def test_configuration_travels_as_json():
    for config in (VIT_B32, DEMO, dataclasses.replace(TINY, activation="gelu")):
        assert CLIPConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    values = VIT_B32.to_dict()
    with pytest.raises(UserError, match="depth"):
        CLIPConfig.from_dict(values | {"depth": 3})
    del values["vision"]
    with pytest.raises(UserError, match="vision"):
        CLIPConfig.from_dict(values)


def test_impossible_configurations_are_the_users_mistake():
    with pytest.raises(UserError, match="swish"):
        dataclasses.replace(TINY, activation="swish")
    with pytest.raises(UserError, match="patch_size"):
        VisionConfig(image_size=64, patch_size=7, width=8, layers=1, heads=2)
    with pytest.raises(UserError, match="heads"):
        TextConfig(width=10, layers=1, heads=3)
