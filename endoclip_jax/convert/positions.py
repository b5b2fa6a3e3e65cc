"""Position embeddings of an image tower carried over to another image size."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

from endoclip_jax.models.positions import bicubic_weights


def interpolate_positions(
    positions: Float[np.ndarray, "n d"], side: int
) -> Float[np.ndarray, "m d"]:
    """Class position unchanged, the square grid resized to `side` x `side`, float32.

    The same numbers as transformers' `interpolate_pos_encoding` (PyTorch's bicubic, corners not
    aligned, no antialiasing), so that a model converted to another size is the one PyTorch makes.
    """
    before = math.isqrt(len(positions) - 1)
    weights = bicubic_weights(before, side)
    grid = positions[1:].reshape(before, before, -1).astype(np.float64)
    resized = np.einsum("ri,cj,ijd->rcd", weights, weights, grid, optimize=True)
    flat = resized.reshape(side * side, -1).astype(np.float32)
    return np.concatenate([positions[:1].astype(np.float32), flat])
