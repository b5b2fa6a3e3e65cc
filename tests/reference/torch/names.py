"""The package's parameter tree under `transformers`' names and in PyTorch's layout.

The same for parameters and for their gradients: only transposes and splits. Names begin with
`clip.` (a `CLIPModel`) or `cross.` (a `CrossAttention`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

Named = dict[str, np.ndarray]


def named(tree: Mapping[str, Any]) -> Named:
    """`{"clip": ..., "cross": ...}` (the second may be missing) as one flat dictionary."""
    clip = tree["clip"]
    arrays: Named = {"clip.logit_scale": clip["logit_scale"]}
    arrays |= _vision(clip["vision"])
    arrays |= _text(clip["text"])
    for direction, kernels in tree.get("cross", {}).items():
        for role, layer in kernels.items():
            arrays[f"cross.{direction}.{role}"] = np.asarray(layer["kernel"]).T
    return {name: np.array(array, order="C") for name, array in arrays.items()}


def _vision(tree: Mapping[str, Any]) -> Named:
    patches = np.asarray(tree["patch_embedding"]["kernel"])  # height, width, channel, feature
    embeddings = "clip.vision_model.embeddings"
    return {
        f"{embeddings}.class_embedding": tree["class_embedding"],
        f"{embeddings}.patch_embedding.weight": patches.transpose(3, 2, 0, 1),
        f"{embeddings}.position_embedding.weight": tree["position_embedding"],
        **_norm("clip.vision_model.pre_layrnorm", tree["pre_norm"]),
        **_blocks("clip.vision_model", tree),
        **_norm("clip.vision_model.post_layernorm", tree["post_norm"]),
        **_linear("clip.visual_projection", tree["projection"]),
    }


def _text(tree: Mapping[str, Any]) -> Named:
    embeddings = "clip.text_model.embeddings"
    return {
        f"{embeddings}.token_embedding.weight": tree["token_embedding"],
        f"{embeddings}.position_embedding.weight": tree["position_embedding"],
        **_blocks("clip.text_model", tree),
        **_norm("clip.text_model.final_layer_norm", tree["final_norm"]),
        **_linear("clip.text_projection", tree["projection"]),
    }


def _blocks(prefix: str, tree: Mapping[str, Any]) -> Named:
    arrays: Named = {}
    for name in (name for name in tree if name.startswith("block_")):
        block, layer = tree[name], f"{prefix}.encoder.layers.{name.removeprefix('block_')}"
        fused = block["attention"]["qkv"]
        kernels = np.split(np.asarray(fused["kernel"]), 3, axis=1)
        biases = np.split(np.asarray(fused["bias"]), 3)
        for role, kernel, bias in zip("qkv", kernels, biases, strict=True):
            arrays |= _linear(f"{layer}.self_attn.{role}_proj", {"kernel": kernel, "bias": bias})
        arrays |= _linear(f"{layer}.self_attn.out_proj", block["attention"]["out"])
        arrays |= _norm(f"{layer}.layer_norm1", block["norm_1"])
        arrays |= _norm(f"{layer}.layer_norm2", block["norm_2"])
        arrays |= _linear(f"{layer}.mlp.fc1", block["up"])
        arrays |= _linear(f"{layer}.mlp.fc2", block["down"])
    return arrays


def _linear(name: str, layer: Mapping[str, Any]) -> Named:
    arrays = {f"{name}.weight": np.asarray(layer["kernel"]).T}
    if "bias" in layer:
        arrays[f"{name}.bias"] = layer["bias"]
    return arrays


def _norm(name: str, layer: Mapping[str, Any]) -> Named:
    return {f"{name}.weight": layer["scale"], f"{name}.bias": layer["bias"]}
