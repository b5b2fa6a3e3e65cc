"""Weights from any form to any other: what `launch/convert.py` does."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from endoclip_jax.convert.export import (
    folded,
    write_checkpoint,
    write_huggingface,
    write_open_clip,
)
from endoclip_jax.convert.fixture import check_weights
from endoclip_jax.convert.source import read_weights
from endoclip_jax.convert.weights import with_image_size
from endoclip_jax.models.layers import ACTIVATIONS

_WRITE = {
    "checkpoint": write_checkpoint,
    "huggingface": write_huggingface,
    "open_clip": write_open_clip,
}


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="convert.py", description="Converts CLIP weights, exactly, between all forms known."
    )
    add = parser.add_argument
    add(
        "--source", required=True,
        help="a stage's folder, a Hugging Face or open_clip folder, a .safetensors, .bin or .pt "
        "file with OpenAI's names, or a hub name",
    )  # fmt: skip
    add("--out", type=Path, required=True, help="a new folder")
    add("--to", choices=sorted(_WRITE), default="checkpoint", help="default: checkpoint")
    add("--image_size", type=int, help="in pixels; position embeddings are interpolated")
    add("--activation", choices=sorted(ACTIVATIONS), help="of a file that does not say")
    add(
        "--fold", action="store_true",
        help="multiply stage 3's value matrices into the projections: a plain CLIP, same scores",
    )  # fmt: skip
    return parser.parse_args(argv)


def convert(options: argparse.Namespace) -> None:
    """Reads, checks and writes; prints what was assumed and where the result lies."""
    weights = read_weights(options.source, options.activation)
    check_weights(weights)
    if options.image_size:
        weights = with_image_size(weights, options.image_size)
    if options.fold:
        weights = folded(weights)
    _WRITE[options.to](weights, options.out.expanduser())
    for note in weights.notes:
        print(f"note: {note}")
    vision = weights.config.vision
    print(
        f"{options.out}: {options.to} of a ViT with {vision.layers} layers of {vision.width}, "
        f"images {vision.image_size}, patches {vision.patch_size}, {weights.config.activation}"
        + (", with cross-attention beside" if weights.cross is not None else "")
    )
    if options.to == "checkpoint":
        print(f"start from it with --config.init.clip={options.out}")
