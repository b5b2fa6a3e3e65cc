"""An image tower at another image size: its position embeddings, resized by a bicubic kernel."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from endoclip_jax.models.clip import CLIP

_A = -0.75  # PyTorch's cubic kernel; Pillow's and JAX's is -0.5


def image_features(
    model: CLIP, params: Mapping[str, Any], pixels: Float[Array, "b s s 3"]
) -> Float[Array, "b d"]:
    """What the image tower gives before it is normalised, for images of any size in whole patches.

    The position embeddings of a size that is not the model's are interpolated from its own, with
    gradients to them (DINO, section 3.1: local crops pass through the same tower).

    Args:
      params: the CLIP tree.
    """
    vision = model.config.vision
    size = pixels.shape[1]
    if size != vision.image_size:
        side = size // vision.patch_size
        tower = dict(params["vision"])
        tower["position_embedding"] = resized_positions(tower["position_embedding"], side)
        params = {**params, "vision": tower}
        vision = dataclasses.replace(vision, image_size=size)
        model = model.clone(config=dataclasses.replace(model.config, vision=vision))
    features = model.apply({"params": params}, pixels, method=_before_normalising)
    return cast(jax.Array, features).astype(jnp.float32)


def _before_normalising(model: CLIP, pixels: jax.Array) -> jax.Array:
    return model.vision(pixels)


def resized_positions(positions: Float[Array, "n d"], side: int) -> Float[Array, "m d"]:
    """Class position unchanged, the square grid resized to `side` x `side`.

    `convert.positions` in JAX: PyTorch's bicubic, corners not aligned, no antialiasing.
    """
    before = math.isqrt(len(positions) - 1)
    weights = jnp.asarray(bicubic_weights(before, side), positions.dtype)
    grid = positions[1:].reshape(before, before, -1)
    resized = jnp.einsum(
        "ri,cj,ijd->rcd", weights, weights, grid, precision=jax.lax.Precision.HIGHEST
    )
    return jnp.concatenate([positions[:1], resized.reshape(side * side, -1)])


def bicubic_weights(before: int, after: int) -> Float[np.ndarray, "after before"]:
    """How much each old position counts in each new one; edges repeat."""
    weights = np.zeros((after, before))
    for row in range(after):
        centre = (row + 0.5) * before / after - 0.5
        first = math.floor(centre) - 1
        for neighbour in range(first, first + 4):
            share = _cubic(abs(centre - neighbour))
            weights[row, min(max(neighbour, 0), before - 1)] += share
    return weights


def _cubic(distance: float) -> float:
    if distance <= 1:
        return ((_A + 2) * distance - (_A + 3)) * distance**2 + 1
    return _A * (((distance - 5) * distance + 8) * distance - 4)
