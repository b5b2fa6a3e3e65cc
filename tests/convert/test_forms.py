"""Every form of weights read and written: the same bits there and back, and strict about names."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import torch
from PIL import Image
from small_models import numpy_tensors, same_state
from transformers import CLIPModel, CLIPProcessor

from endoclip_jax.convert.export import (
    folded,
    write_checkpoint,
    write_huggingface,
    write_open_clip,
)
from endoclip_jax.convert.names import cross_attention_rows
from endoclip_jax.convert.source import model_config, read_weights
from endoclip_jax.convert.weights import Weights, check_fits, with_image_size
from endoclip_jax.data.tokenizer import load_tokenizer
from endoclip_jax.data.transforms import eval_image, normalize
from endoclip_jax.errors import UserError
from endoclip_jax.library import Model
from endoclip_jax.models.clip import VIT_B32, CLIPConfig, TextConfig, VisionConfig

FIXTURE = Path(__file__).parents[2] / "endoclip_jax" / "convert" / "data" / "fixture.jpg"


@pytest.fixture(scope="module")
def weights(hf_folder) -> Weights:
    return read_weights(hf_folder)


@pytest.fixture(scope="module")
def with_cross(weights) -> Weights:
    rng = np.random.default_rng(0)
    dim = weights.config.embed_dim
    cross: dict = {}
    for row in cross_attention_rows():
        way, part, kernel = row.path
        matrix = np.eye(dim) + 0.3 * rng.normal(size=(dim, dim))
        cross.setdefault(way, {})[part] = {kernel: matrix.astype(np.float32)}
    attention = {"attention": "literal", "qk_norm": True, "residual": False}
    return Weights(weights.config, weights.params, "stage 3", cross, attention)


@pytest.fixture(scope="module")
def exported(with_cross, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "hf"
    write_huggingface(with_cross, folder)
    return folder


@pytest.fixture(scope="module")
def open_clip(weights, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "open_clip"
    write_open_clip(weights, folder)
    return folder


def same_tree(one, other) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same_tree(one[k], other[k]) for k in one)
    return one.dtype == other.dtype and np.array_equal(one, other)


def test_through_a_checkpoint_and_open_clip_the_bits_stay(
    hf_model, with_cross, exported, open_clip, tmp_path
):
    write_checkpoint(with_cross, tmp_path / "checkpoint")
    ours = read_weights(tmp_path / "checkpoint")
    assert same_tree(ours.params, with_cross.params) and same_tree(ours.cross, with_cross.cross)
    assert ours.attention == with_cross.attention
    assert len(ours.fixture) == 8
    assert model_config(tmp_path / "checkpoint") == with_cross.config == model_config(open_clip)
    assert same_state(hf_model, CLIPModel.from_pretrained(exported))
    assert same_tree(read_weights(open_clip).params, with_cross.params)
    back = read_weights(exported)
    assert same_tree(back.cross, with_cross.cross) and back.attention == with_cross.attention


def test_open_clip_names_and_shapes_are_openais(weights, open_clip):
    """Against PyTorch's own modules, from which OpenAI's model is built."""
    tensors = safetensors.numpy.load_file(open_clip / "open_clip_model.safetensors")
    width = weights.config.vision.width
    attention = torch.nn.MultiheadAttention(width, 2, batch_first=True)
    prefix = "visual.transformer.resblocks.0.attn."
    own = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    attention.load_state_dict({name: torch.tensor(tensor) for name, tensor in own.items()})
    x = torch.randn(1, 5, width, generator=torch.Generator().manual_seed(0))
    theirs = CLIPModel.from_pretrained(Path(weights.origin))
    with torch.no_grad():
        expected = theirs.vision_model.encoder.layers[0].self_attn(x, None)[0]
        np.testing.assert_allclose(attention(x, x, x)[0], expected, atol=1e-5)
    assert tensors["visual.proj"].shape == (width, weights.config.embed_dim)
    assert tensors["logit_scale"].shape == ()
    assert {"text_projection", "ln_final.weight", "visual.ln_pre.bias"} <= tensors.keys()


def test_cross_attention_lies_beside_as_torch_linears(with_cross, exported):
    tensors = safetensors.numpy.load_file(exported / "cross_attention.safetensors")
    v = np.random.default_rng(1).normal(size=(3, with_cross.config.embed_dim)).astype(np.float32)
    linear = torch.nn.Linear(v.shape[1], v.shape[1], bias=False)
    linear.load_state_dict({"weight": torch.tensor(tensors["text_to_image.value.weight"])})
    ours = v @ with_cross.cross["text_to_image"]["value"]["kernel"]
    np.testing.assert_allclose(ours, linear(torch.tensor(v)).detach(), atol=1e-5)
    readme = (exported / "README.md").read_text()
    assert "text_to_image.value.weight" in readme and "literal" in readme


def test_folded_model_scores_as_stage_3_does(with_cross):
    plain, whole = Model(folded(with_cross)), Model(with_cross)
    classes = {"polyp": ["a polyp"], "background": ["normal background"]}
    picture = np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)
    scores = [model.score(model.embed_images([picture]), classes) for model in (plain, whole)]
    np.testing.assert_allclose(scores[0].cosine, scores[1].cosine, atol=1e-5)
    unprojected = whole.score(whole.embed_images([picture]), classes, plain=True)
    assert np.abs(unprojected.cosine - scores[1].cosine).max() > 1e-3
    with pytest.raises(UserError, match="no cross-attention"):
        folded(folded(with_cross))


def test_processor_gives_our_pixels_and_our_ids(exported, weights):
    processor = CLIPProcessor.from_pretrained(exported)
    image = Image.open(FIXTURE)
    theirs = processor(images=image, return_tensors="np").pixel_values
    square = eval_image(FIXTURE.read_bytes(), weights.config.vision.image_size)
    ours = normalize(jnp.asarray(square)[None])
    np.testing.assert_allclose(theirs.transpose(0, 2, 3, 1), ours, atol=1e-5)
    texts = [
        "A 5 mm sessile polyp, NICE type 2.", "café naïve ÄÖÜ ß", "12×8 mm 0-IIa+IIc 1234",
        "结肠息肉，表面光滑 かな 한국어", "👍🏽 🔬 polyp", "", "  \n\t ", "polyp " * 200,
        "don't I'll we've x'd", "ſ ﬁ ½ ² é e\u0301 \u200b İ",
    ]  # fmt: skip
    ids, truncated = load_tokenizer()(texts, 77)
    theirs = processor.tokenizer(texts, truncation=True).input_ids
    assert truncated == 1
    for row, expected in zip(ids.tolist(), theirs, strict=True):
        assert row[: len(expected)] == expected and not any(row[len(expected) :])


def test_reading_safetensors_needs_no_torch(hf_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    read_weights(hf_folder)


@pytest.mark.parametrize("wrapper", [None, "state_dict"])
def test_torch_files_are_read_without_torch(hf_model, weights, open_clip, tmp_path, wrapper):
    """`pytorch_model.bin`, and a training checkpoint under OpenAI's names."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(hf_model.config.to_dict()))
    state = hf_model.state_dict()
    state["vision_model.embeddings.position_ids"] = torch.arange(10).expand((1, -1))  # old releases
    content = state if wrapper is None else {wrapper: state, "epoch": 3}
    torch.save(content, folder / "pytorch_model.bin")
    assert same_tree(read_weights(folder).params, weights.params)


def test_half_precision_is_said_and_kept_exactly(hf_model, hf_folder, tmp_path):
    (tmp_path / "config.json").write_bytes((hf_folder / "config.json").read_bytes())
    half = {name: tensor.half() for name, tensor in hf_model.state_dict().items()}
    torch.save(half, tmp_path / "pytorch_model.bin")
    weights = read_weights(tmp_path)
    kernel = weights.params["vision"]["projection"]["kernel"]
    expected = half["visual_projection.weight"].float().numpy().T
    assert kernel.dtype == np.float32 and np.array_equal(kernel, expected)
    assert "float16" in weights.notes[0]


def test_bare_file_of_openais_names(weights, open_clip, tmp_path):
    path = open_clip / "open_clip_model.safetensors"
    with pytest.raises(UserError, match="--activation"):
        read_weights(path)
    tensors = safetensors.numpy.load_file(path)
    released = dict(tensors)
    for name, value in (("input_resolution", 24), ("context_length", 77), ("vocab_size", 49408)):
        released[name] = np.asarray(value)
    safetensors.numpy.save_file(released, tmp_path / "openai.safetensors")
    read = read_weights(tmp_path / "openai.safetensors")
    assert read.config.activation == "quick_gelu" and same_tree(read.params, weights.params)
    assert "heads of 64" in read.notes[0]
    custom = {
        name if name.startswith("visual.") or name == "logit_scale" else f"text.{name}": tensor
        for name, tensor in tensors.items()
    }
    safetensors.numpy.save_file(custom, tmp_path / "custom.safetensors")
    assert same_tree(read_weights(tmp_path / "custom.safetensors", "gelu").params, weights.params)


class _Node(torch.nn.Module):
    """A module that carries tensors under names of our choice."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def _scripted(tensors) -> torch.nn.Module:
    """OpenAI's form of release: half precision, traced, sizes among the buffers."""
    root = _Node()
    for name, array in tensors.items():
        *path, last = name.split(".")
        node = root
        for part in path:
            if part not in node._modules:
                node.add_module(part, _Node())
            node = node._modules[part]
        node.register_buffer(last, torch.tensor(array))
    return torch.jit.trace(root.half(), torch.zeros(1))


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_openais_scripted_release_is_read_without_running_it(weights, open_clip, tmp_path):
    tensors = safetensors.numpy.load_file(open_clip / "open_clip_model.safetensors")
    for name, value in (("input_resolution", 24), ("context_length", 77), ("vocab_size", 49408)):
        tensors[name] = np.asarray(value)
    torch.jit.save(_scripted(tensors), tmp_path / "ViT.pt")
    read = read_weights(tmp_path / "ViT.pt")
    halved = jax.tree.map(lambda x: x.astype(np.float16).astype(np.float32), weights.params)
    assert read.config.activation == "quick_gelu" and same_tree(read.params, halved)
    assert "float16" in read.notes[1]


@pytest.mark.parametrize("size", [16, 40, 64])
def test_positions_interpolate_as_transformers_does(hf_model, weights, size):
    resized = with_image_size(weights, size)
    embeddings = hf_model.vision_model.embeddings
    tokens = torch.zeros(1, 1 + (size // 8) ** 2, 24)
    with torch.no_grad():
        expected = embeddings.interpolate_pos_encoding(tokens, size, size)[0]
    got = resized.params["vision"]["position_embedding"]
    np.testing.assert_allclose(got, expected, atol=1e-5)
    (note,) = resized.notes
    assert "interpolated from 3x3" in note and "\n" not in note
    assert with_image_size(weights, 24) is weights
    with pytest.raises(UserError, match="multiple of 8"):
        with_image_size(weights, 30)


def test_sizes_come_from_the_folder_and_pins_are_kept():
    large = CLIPConfig(
        vision=VisionConfig(image_size=224, patch_size=14, width=1024, layers=24, heads=16),
        text=TextConfig(width=768, layers=12, heads=12),
        embed_dim=768,
    )
    with pytest.raises(UserError, match=r"model\.vision\.patch_size=14.*32"):
        check_fits("clip-vit-large", large, VIT_B32)
    check_fits("clip", VIT_B32, VIT_B32)


def test_missing_unknown_and_misshapen_tensors_are_named(hf_model, hf_folder, tmp_path):
    (tmp_path / "config.json").write_bytes((hf_folder / "config.json").read_bytes())
    name = "vision_model.encoder.layers.1.self_attn.k_proj.weight"
    whole = {key: np.array(value, order="C") for key, value in numpy_tensors(hf_model).items()}
    for change, message in (
        ({name: None}, f"no tensor '{name}'"),
        ({"vision_model.head.weight": np.zeros(3, np.float32)}, r"vision_model\.head\.weight"),
        ({name: np.zeros((24, 23), np.float32)}, rf"{name}.*24x23.*24x24"),
    ):
        tensors = {k: v for k, v in {**whole, **change}.items() if v is not None}
        safetensors.numpy.save_file(tensors, tmp_path / "model.safetensors")
        with pytest.raises(UserError, match=message):
            read_weights(tmp_path)
