"""The one table of parameter names: ours, Hugging Face's and OpenAI's, in both directions.

open_clip uses OpenAI's names. A row of the table says where one of our parameters lies in the other
layout, and how its axes are turned; reading and writing are the same row, forwards and backwards,
so a round trip gives the same bits. Nothing is skipped: a name that has no row, a row that finds no
name and a shape that does not fit are errors with the name in them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from endoclip_jax.errors import UserError
from endoclip_jax.models.clip import CLIP, CLIPConfig

Naming = Literal["huggingface", "openai"]
Layout = Literal["same", "transposed", "convolution"]
Tensors = dict[str, np.ndarray]

_TO_OURS = {"same": None, "transposed": (1, 0), "convolution": (2, 3, 1, 0)}  # OIHW -> HWIO
_TO_THEIRS = {"same": None, "transposed": (1, 0), "convolution": (3, 2, 0, 1)}


class Place(NamedTuple):
    """Where a parameter lies in another layout: one tensor, or several joined along axis 0."""

    names: tuple[str, ...]
    layout: Layout = "same"


class Row(NamedTuple):
    """One of our parameters, as a path in the tree, and its place under each naming."""

    path: tuple[str, ...]
    huggingface: Place
    openai: Place


def clip_rows(config: CLIPConfig) -> list[Row]:
    """The table for a model of this depth."""
    hf_vision, hf_text = "vision_model.", "text_model."
    return [
        _row("logit_scale", "logit_scale", "logit_scale"),
        _row(
            "vision/patch_embedding/kernel",
            f"{hf_vision}embeddings.patch_embedding.weight",
            "visual.conv1.weight",
            "convolution",
        ),
        _row(
            "vision/class_embedding",
            f"{hf_vision}embeddings.class_embedding",
            "visual.class_embedding",
        ),
        _row(
            "vision/position_embedding",
            f"{hf_vision}embeddings.position_embedding.weight",
            "visual.positional_embedding",
        ),
        *_norm("vision/pre_norm", f"{hf_vision}pre_layrnorm", "visual.ln_pre"),
        *_norm("vision/post_norm", f"{hf_vision}post_layernorm", "visual.ln_post"),
        _projection("vision/projection/kernel", "visual_projection.weight", "visual.proj"),
        _row(
            "text/token_embedding",
            f"{hf_text}embeddings.token_embedding.weight",
            "token_embedding.weight",
        ),
        _row(
            "text/position_embedding",
            f"{hf_text}embeddings.position_embedding.weight",
            "positional_embedding",
        ),
        *_norm("text/final_norm", f"{hf_text}final_layer_norm", "ln_final"),
        _projection("text/projection/kernel", "text_projection.weight", "text_projection"),
        *(
            row
            for layer in range(config.vision.layers)
            for row in _block("vision", layer, hf_vision, "visual.")
        ),
        *(row for layer in range(config.text.layers) for row in _block("text", layer, hf_text, "")),
    ]


def cross_attention_rows() -> list[Row]:
    """Stage 3's six matrices, which no other CLIP has: the same names under either naming."""
    return [
        _row(f"{way}/{part}/kernel", f"{way}.{part}.weight", f"{way}.{part}.weight", "transposed")
        for way in ("image_to_text", "text_to_image")
        for part in ("query", "key", "value")
    ]


def to_ours(
    tensors: Mapping[str, np.ndarray],
    rows: list[Row],
    shapes: Mapping[str, tuple[int, ...]],
    naming: Naming,
    where: str,
) -> dict[str, Any]:
    """Our parameter tree, float32, from tensors named otherwise.

    Args:
      shapes: what our parameters must be, by path joined with `/`.
      where: what the tensors come from, for messages.

    Raises:
      UserError: naming a tensor that is missing, that has no place here, or has another shape.
    """
    tree: dict[tuple[str, ...], np.ndarray] = {}
    left = set(tensors)
    for row in rows:
        place: Place = getattr(row, naming)
        ours = shapes["/".join(row.path)]
        expected = _their_shape(ours, place)
        parts = []
        for name in place.names:
            if name not in tensors:
                raise UserError(f"{where} has no tensor {name!r}, which the model needs")
            if tensors[name].shape != expected:
                raise UserError(
                    f"the tensor {name!r} of {where} has shape {_shown(tensors[name].shape)}, the "
                    f"configuration makes it {_shown(expected)}"
                )
            left.discard(name)
            parts.append(tensors[name].astype(np.float32))
        joined = parts[0] if len(parts) == 1 else np.concatenate(parts)
        tree[row.path] = _turned(joined, _TO_OURS[place.layout])
    if left:
        raise UserError(
            f"{where} has {len(left)} tensor(s) that CLIP has no place for, such as "
            f"{min(left)!r}: it is another model, or another version of it"
        )
    return flax.traverse_util.unflatten_dict(tree)


def to_theirs(params: Mapping[str, Any], rows: list[Row], naming: Naming) -> Tensors:
    """Tensors under another naming from our parameter tree: the exact inverse of `to_ours`.

    Raises:
      UserError: naming a parameter of the tree that the table does not have, or the reverse.
    """
    flat = flax.traverse_util.flatten_dict(params)
    known = {row.path for row in rows}
    if flat.keys() != known:
        path = min(flat.keys() ^ known)
        state = "is missing" if path in known else "has no name elsewhere"
        raise UserError(f"the checkpoint's parameter {'/'.join(path)!r} {state}")
    tensors: Tensors = {}
    for row in rows:
        place: Place = getattr(row, naming)
        turned = _turned(np.asarray(flat[row.path], np.float32), _TO_THEIRS[place.layout])
        parts = [turned] if len(place.names) == 1 else np.split(turned, len(place.names))
        tensors |= dict(zip(place.names, parts, strict=True))
    return tensors


def clip_shapes(config: CLIPConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every parameter of the model, by path joined with `/`."""
    size = config.vision.image_size
    abstract = jax.eval_shape(
        CLIP(config).init,
        jax.random.key(0),
        jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32),
        jax.ShapeDtypeStruct((1, 2), jnp.int32),
    )["params"]
    return {
        path: leaf.shape
        for path, leaf in flax.traverse_util.flatten_dict(abstract, sep="/").items()
    }


def cross_attention_shapes(dim: int) -> dict[str, tuple[int, ...]]:
    """Shape of the cross-attention's parameters for embeddings of `dim`."""
    return {"/".join(row.path): (dim, dim) for row in cross_attention_rows()}


def _row(ours: str, huggingface: str, openai: str, layout: Layout = "same") -> Row:
    return Row(tuple(ours.split("/")), Place((huggingface,), layout), Place((openai,), layout))


def _projection(ours: str, huggingface: str, openai: str) -> Row:
    """OpenAI multiplies by its projections from the right, as we do; a torch Linear is turned."""
    return Row(
        tuple(ours.split("/")), Place((huggingface,), "transposed"), Place((openai,), "same")
    )


def _norm(ours: str, huggingface: str, openai: str) -> list[Row]:
    return [
        _row(f"{ours}/scale", f"{huggingface}.weight", f"{openai}.weight"),
        _row(f"{ours}/bias", f"{huggingface}.bias", f"{openai}.bias"),
    ]


def _linear(ours: str, huggingface: str, openai: str) -> list[Row]:
    return [
        _row(f"{ours}/kernel", f"{huggingface}.weight", f"{openai}.weight", "transposed"),
        _row(f"{ours}/bias", f"{huggingface}.bias", f"{openai}.bias"),
    ]


def _block(tower: str, layer: int, hf_tower: str, openai_tower: str) -> list[Row]:
    ours = f"{tower}/block_{layer}"
    hf = f"{hf_tower}encoder.layers.{layer}"
    openai = f"{openai_tower}transformer.resblocks.{layer}"
    qkv = (*ours.split("/"), "attention", "qkv")

    def hf_parts(kind: str) -> tuple[str, ...]:
        return tuple(f"{hf}.self_attn.{part}_proj.{kind}" for part in "qkv")

    return [
        *_norm(f"{ours}/norm_1", f"{hf}.layer_norm1", f"{openai}.ln_1"),
        Row(
            (*qkv, "kernel"),
            Place(hf_parts("weight"), "transposed"),
            Place((f"{openai}.attn.in_proj_weight",), "transposed"),
        ),
        Row(
            (*qkv, "bias"),
            Place(hf_parts("bias")),
            Place((f"{openai}.attn.in_proj_bias",)),
        ),
        *_linear(f"{ours}/attention/out", f"{hf}.self_attn.out_proj", f"{openai}.attn.out_proj"),
        *_norm(f"{ours}/norm_2", f"{hf}.layer_norm2", f"{openai}.ln_2"),
        *_linear(f"{ours}/up", f"{hf}.mlp.fc1", f"{openai}.mlp.c_fc"),
        *_linear(f"{ours}/down", f"{hf}.mlp.fc2", f"{openai}.mlp.c_proj"),
    ]


def _turned(array: np.ndarray, axes: tuple[int, ...] | None) -> np.ndarray:
    return np.array(array if axes is None else array.transpose(axes), order="C")


def _their_shape(ours: tuple[int, ...], place: Place) -> tuple[int, ...]:
    axes = _TO_THEIRS[place.layout]
    shape = ours if axes is None else tuple(ours[axis] for axis in axes)
    return (shape[0] // len(place.names), *shape[1:]) if len(place.names) > 1 else shape


def _shown(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "()"
