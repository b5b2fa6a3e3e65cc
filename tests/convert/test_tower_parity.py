"""Module by module the numbers of PyTorch: 1e-5 for modules, 1e-4 for logits."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from small_models import numpy_tensors, same_state, small_clip
from transformers import CLIPConfig, CLIPModel

from endoclip_jax.convert.configurations import from_huggingface
from endoclip_jax.convert.export import write_huggingface
from endoclip_jax.convert.names import clip_rows, clip_shapes, to_ours
from endoclip_jax.convert.source import read_weights
from endoclip_jax.models.clip import CLIP, VIT_B32
from endoclip_jax.models.layers import ACTIVATIONS, Block
from endoclip_jax.models.vit import PatchEmbedding

MODULES = {"rtol": 1e-5, "atol": 1e-5}
LOGITS = {"rtol": 0, "atol": 1e-4}
VOCABULARY, EOT = 99, 98


@pytest.fixture(scope="module", params=["quick_gelu", "gelu"])
def pair(request):
    """PyTorch's model, our configuration and our parameters with the same weights."""
    model = small_clip(request.param, vocab_size=VOCABULARY)
    config = from_huggingface(model.config.to_dict(), "the test's model")
    params = to_ours(
        numpy_tensors(model), clip_rows(config), clip_shapes(config), "huggingface", "the model"
    )
    return model, config, params


def pixels(count: int, size: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, size, size, 3)).astype(np.float32)


def torch_image(images: np.ndarray) -> torch.Tensor:
    return torch.tensor(images.transpose(0, 3, 1, 2).copy())


def texts(lengths, width: int, pad) -> np.ndarray:
    """Random tokens, EOT at each text's end, then padding."""
    rng = np.random.default_rng(1)
    ids = np.empty((len(lengths), width), np.int32)
    for row, length in zip(ids, lengths, strict=True):
        row[:length] = rng.integers(1, EOT - 1, length)
        row[length - 1] = EOT
        row[length:] = rng.integers(0, EOT, width - length) if pad == "noise" else pad
    return ids


@functools.cache
def jitted(config, method="__call__"):
    return jax.jit(functools.partial(CLIP(config).apply, method=method))


def test_patch_embedding(pair):
    model, config, params = pair
    images = pixels(2, config.vision.image_size)
    with torch.no_grad():
        expected = model.vision_model.embeddings.patch_embedding(torch_image(images))
    got = PatchEmbedding(config.vision.patch_size, config.vision.width).apply(
        {"params": params["vision"]["patch_embedding"]}, jnp.asarray(images)
    )
    np.testing.assert_allclose(got, expected.flatten(2).transpose(1, 2), **MODULES)


@pytest.mark.parametrize("tower", ["vision", "text"])
def test_one_block(pair, tower):
    model, config, params = pair
    sizes = getattr(config, tower)
    x = np.random.default_rng(2).normal(size=(2, 7, sizes.width)).astype(np.float32)
    causal = np.tril(np.ones((7, 7), bool)) if tower == "text" else None
    mask = (
        None if causal is None else torch.where(torch.tensor(causal), 0.0, -torch.inf)[None, None]
    )
    layer = getattr(model, f"{tower}_model").encoder.layers[0]
    with torch.no_grad():
        expected = layer(torch.tensor(x), attention_mask=mask)
    block = Block(sizes.heads, sizes.layers, ACTIVATIONS[config.activation], config.layer_norm_eps)
    got = jax.jit(block.apply)(
        {"params": params[tower]["block_0"]},
        jnp.asarray(x),
        None if causal is None else jnp.asarray(causal)[None],
    )
    np.testing.assert_allclose(got, expected, **MODULES)


def test_vision_tower(pair):
    model, config, params = pair
    images = pixels(3, config.vision.image_size)
    with torch.no_grad():
        expected = model.get_image_features(torch_image(images)).pooler_output
    got = jitted(config, "encode_image")({"params": params}, jnp.asarray(images))
    unit = torch.nn.functional.normalize(expected, dim=-1)
    np.testing.assert_allclose(got, unit, **MODULES)


@pytest.mark.parametrize("pad", [0, EOT, "noise"])
def test_text_tower_for_every_length_and_padding(pair, pad):
    model, config, params = pair
    ids = texts(range(2, 78), 77, pad)
    with torch.no_grad():
        expected = model.get_text_features(torch.tensor(ids)).pooler_output
    got = jitted(config, "encode_text")({"params": params}, ids)
    np.testing.assert_allclose(got, torch.nn.functional.normalize(expected, dim=-1), **MODULES)


def test_text_tower_in_a_short_bucket(pair):
    model, config, params = pair
    ids = texts(range(2, 17), 77, 0)
    with torch.no_grad():
        expected = model.get_text_features(torch.tensor(ids)).pooler_output
    got = jitted(config, "encode_text")({"params": params}, ids[:, :16])
    np.testing.assert_allclose(got, torch.nn.functional.normalize(expected, dim=-1), **MODULES)


def test_logits(pair):
    model, config, params = pair
    images, ids = pixels(3, config.vision.image_size), texts([3, 9, 16, 77], 77, 0)
    with torch.no_grad():
        expected = model(torch.tensor(ids), torch_image(images)).logits_per_image
    v, t, scale = jitted(config)({"params": params}, jnp.asarray(images), ids)
    np.testing.assert_allclose(jnp.exp(scale) * v @ t.T, expected, **LOGITS)


def test_vit_b32_in_full_size_there_and_back(tmp_path):
    """`CLIPModel(CLIPConfig())`, saved, read, scored, exported, loaded: the same bits."""
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig()).eval()
    model.save_pretrained(tmp_path / "given")
    weights = read_weights(tmp_path / "given")
    assert weights.config == VIT_B32
    images = pixels(8, 224)
    ids = np.zeros((8, 16), np.int32)
    for length, row in enumerate(ids, start=3):
        row[:length] = [49406, *range(320, 318 + length), 49407]
    with torch.no_grad():
        expected = model(torch.tensor(ids), torch_image(images)).logits_per_image
    v, t, scale = jitted(VIT_B32)({"params": weights.params}, jnp.asarray(images), ids)
    np.testing.assert_allclose(jnp.exp(scale) * v @ t.T, expected, **LOGITS)
    write_huggingface(weights, tmp_path / "exported")
    assert same_state(model, CLIPModel.from_pretrained(tmp_path / "exported"))
