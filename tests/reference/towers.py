"""CLIP's two towers, float64, token by token and head by head.

Written from Radford et al. (2021) and OpenAI's description of the released models. ``params`` is
the package's parameter tree as NumPy arrays; all tokens go through all blocks.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def quick_gelu(x: np.ndarray) -> np.ndarray:
    return np.array([value / (1 + math.exp(-1.702 * value)) for value in x])


def gelu(x: np.ndarray) -> np.ndarray:
    return np.array([0.5 * value * (1 + math.erf(value / math.sqrt(2))) for value in x])


ACTIVATIONS = {"quick_gelu": quick_gelu, "gelu": gelu}


def layer_norm(x: np.ndarray, params: dict[str, np.ndarray], eps: float) -> np.ndarray:
    centred = x - x.mean()
    return centred / math.sqrt(float((centred**2).mean()) + eps) * params["scale"] + params["bias"]


def attention(
    tokens: list[np.ndarray], params: dict[str, Any], heads: int, causal: bool
) -> list[np.ndarray]:
    width = len(tokens[0])
    size = width // heads
    qkv = [x @ params["qkv"]["kernel"] + params["qkv"]["bias"] for x in tokens]
    outputs = []
    for position in range(len(tokens)):
        visible = range(position + 1) if causal else range(len(tokens))
        joined = np.zeros(width)
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            query = qkv[position][:width][part]
            logits = [
                float(query @ qkv[other][width : 2 * width][part]) / math.sqrt(size)
                for other in visible
            ]
            shares = [math.exp(value - max(logits)) for value in logits]
            for share, other in zip(shares, visible, strict=True):
                joined[part] += share / sum(shares) * qkv[other][2 * width :][part]
        outputs.append(joined @ params["out"]["kernel"] + params["out"]["bias"])
    return outputs


def block(
    tokens: list[np.ndarray],
    params: dict[str, Any],
    *,
    heads: int,
    activation: str,
    eps: float,
    causal: bool,
) -> list[np.ndarray]:
    normed = [layer_norm(x, params["norm_1"], eps) for x in tokens]
    attended = attention(normed, params["attention"], heads, causal)
    tokens = [x + y for x, y in zip(tokens, attended, strict=True)]
    outputs = []
    for x in tokens:
        hidden = layer_norm(x, params["norm_2"], eps) @ params["up"]["kernel"]
        hidden = ACTIVATIONS[activation](hidden + params["up"]["bias"])
        outputs.append(x + hidden @ params["down"]["kernel"] + params["down"]["bias"])
    return outputs


def image_feature(pixels: np.ndarray, params: dict[str, Any], config: dict[str, Any]) -> np.ndarray:
    """``pixels [S, S, 3]`` -> unit feature, the patches gathered by a sliding convolution."""
    vision = config["vision"]
    patch, side = vision["patch_size"], vision["image_size"] // vision["patch_size"]
    kernel = params["patch_embedding"]["kernel"]
    tokens = [params["class_embedding"]]
    for row in range(side):
        for column in range(side):
            token = np.zeros(vision["width"])
            for y in range(patch):
                for x in range(patch):
                    token += pixels[row * patch + y, column * patch + x] @ kernel[y, x]
            tokens.append(token)
    eps = config["layer_norm_eps"]
    tokens = [x + p for x, p in zip(tokens, params["position_embedding"], strict=True)]
    tokens = [layer_norm(x, params["pre_norm"], eps) for x in tokens]
    tokens = _blocks(tokens, params, vision, config, causal=False)
    feature = layer_norm(tokens[0], params["post_norm"], eps) @ params["projection"]["kernel"]
    return feature / math.sqrt(float(feature @ feature))


def text_feature(ids: list[int], params: dict[str, Any], config: dict[str, Any]) -> np.ndarray:
    """Token ids -> unit feature at the first highest id."""
    tokens = [
        params["token_embedding"][token] + params["position_embedding"][position]
        for position, token in enumerate(ids)
    ]
    tokens = _blocks(tokens, params, config["text"], config, causal=True)
    at_eot = tokens[ids.index(max(ids))]
    normed = layer_norm(at_eot, params["final_norm"], config["layer_norm_eps"])
    feature = normed @ params["projection"]["kernel"]
    return feature / math.sqrt(float(feature @ feature))


def _blocks(
    tokens: list[np.ndarray],
    params: dict[str, Any],
    tower: dict[str, Any],
    config: dict[str, Any],
    *,
    causal: bool,
) -> list[np.ndarray]:
    for layer in range(tower["layers"]):
        tokens = block(
            tokens,
            params[f"block_{layer}"],
            heads=tower["heads"],
            activation=config["activation"],
            eps=config["layer_norm_eps"],
            causal=causal,
        )
    return tokens
