"""SSCD's loss, float64, one pair at a time (arXiv 2202.10261); gradients by differences."""

from __future__ import annotations

import math

import numpy as np


def copy_detection(z: np.ndarray, contents: np.ndarray, tau: float, weight: float) -> dict:
    """Loss and terms of descriptors `[n, d]`, all of which count."""
    n = len(z)
    cosine = [[sum(float(a) * float(b) for a, b in zip(x, y, strict=True)) for y in z] for x in z]
    shares = [
        [any(a > 0 and b > 0 for a, b in zip(x, y, strict=True)) for y in contents]
        for x in contents
    ]
    info_nce = apart = 0.0
    for i in range(n):
        matches = [j for j in range(n) if j != i and shares[i][j]]
        others = [k for k in range(n) if not shares[i][k]]
        against = sum(math.exp(cosine[i][k] / tau) for k in others)
        for j in matches:
            own = math.exp(cosine[i][j] / tau)
            info_nce -= math.log(own / (own + against)) / (len(matches) * n)
        nearest = min(math.dist(z[i], z[k]) for k in others)
        apart -= math.log(max(nearest, 1e-3)) / n
    return {
        "loss": info_nce + weight * apart,
        "info_nce": info_nce,
        "differential_entropy": -apart,
    }


def gradient(z: np.ndarray, contents: np.ndarray, tau: float, weight: float) -> np.ndarray:
    """d loss / d z by central differences, the length of z taken as it comes.

    Distances are written as sqrt(2 - 2 cos), as for unit vectors, so that both sides differentiate
    the same function of z.
    """

    def loss(x: np.ndarray) -> float:
        s = x @ x.T
        shared = (contents @ contents.T) > 0
        total = 0.0
        for i in range(len(x)):
            matches = [j for j in range(len(x)) if j != i and shared[i, j]]
            others = np.flatnonzero(~shared[i])
            against = float(np.exp(s[i, others] / tau).sum())
            for j in matches:
                own = math.exp(s[i, j] / tau)
                total -= math.log(own / (own + against)) / len(matches)
            total -= weight * math.log(math.sqrt(2 - 2 * float(s[i, others].max())))
        return total / len(x)

    step, result = 1e-5, np.zeros(z.shape)
    for place in np.ndindex(*z.shape):
        up, down = z.copy(), z.copy()
        up[place] += step
        down[place] -= step
        result[place] = (loss(up) - loss(down)) / (2 * step)
    return result
