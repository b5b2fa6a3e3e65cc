"""Position embeddings of an image tower carried over to another image size."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

_A = -0.75  # PyTorch's cubic kernel; Pillow's and JAX's is -0.5


def interpolate_positions(
    positions: Float[np.ndarray, "n d"], side: int
) -> Float[np.ndarray, "m d"]:
    """Class position unchanged, the square grid resized to `side` x `side`, float32.

    The same numbers as transformers' `interpolate_pos_encoding` (PyTorch's bicubic, corners not
    aligned, no antialiasing), so that a model converted to another size is the one PyTorch makes.
    """
    before = math.isqrt(len(positions) - 1)
    weights = _bicubic_weights(before, side)
    grid = positions[1:].reshape(before, before, -1).astype(np.float64)
    resized = np.einsum("ri,cj,ijd->rcd", weights, weights, grid, optimize=True)
    flat = resized.reshape(side * side, -1).astype(np.float32)
    return np.concatenate([positions[:1].astype(np.float32), flat])


def _bicubic_weights(before: int, after: int) -> Float[np.ndarray, "after before"]:
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
