"""The contrastive losses and their targets, float64, one number at a time.

Written from Endo-CLIP's Eq. 2, 3 and 5 and the project's method notes; knows nothing of the
package. Gradients are analytic: d soft_ce / d S_ij = (r_i softmax(S_i)_j - Y_ij) / n.
"""

from __future__ import annotations

import math

import numpy as np


def cosine(x: np.ndarray, y: np.ndarray) -> float:
    lengths = math.sqrt(sum(float(a) ** 2 for a in x)) * math.sqrt(sum(float(a) ** 2 for a in y))
    return sum(float(a) * float(b) for a, b in zip(x, y, strict=True)) / lengths if lengths else 0.0


def similarity(a_v: np.ndarray, a_t: np.ndarray) -> np.ndarray:
    matrix = np.zeros((len(a_v), len(a_t)))
    for i in range(len(a_v)):
        for j in range(len(a_t)):
            matrix[i, j] = cosine(a_v[i], a_t[j])
    return matrix


def target_rows(matrix: np.ndarray, target: str, norm: str | tuple[str, float]) -> np.ndarray:
    """Targets of one direction from the similarity of its rows to its columns."""
    size = len(matrix)
    targets = np.zeros((size, size))
    for i in range(size):
        if target == "onehot":
            row = [1.0 if j == i else 0.0 for j in range(size)]
        elif target == "multi_positive":
            row = [1.0 if j == i or matrix[i, j] > 1 - 1e-9 else 0.0 for j in range(size)]
            row = [value / sum(row) for value in row]
        else:
            row = _normalized(i, [float(m) for m in matrix[i]], norm)
        targets[i] = row
    return targets


def _normalized(i: int, row: list[float], norm: str | tuple[str, float]) -> list[float]:
    if norm == "none":
        return row
    row = [max(value, 1.0) if j == i else value for j, value in enumerate(row)]
    if norm != "l1":
        kind, parameter = norm
        if kind == "power":
            row = [value**parameter for value in row]
        else:
            row = [math.exp(value / parameter) for value in row]
    return [value / sum(row) for value in row]


def logsumexp(values: np.ndarray) -> float:
    highest = max(float(value) for value in values)
    return highest + math.log(sum(math.exp(float(value) - highest) for value in values))


def soft_cross_entropy(logits: np.ndarray, targets: np.ndarray) -> tuple[float, np.ndarray]:
    """Value and gradient by logits."""
    size = len(logits)
    value, gradient = 0.0, np.zeros_like(logits)
    for i in range(size):
        mass, log_partition = sum(targets[i]), logsumexp(logits[i])
        value += (mass * log_partition - sum(targets[i] * logits[i])) / size
        for j in range(size):
            share = math.exp(logits[i, j] - log_partition)
            gradient[i, j] = (mass * share - targets[i, j]) / size
    return value, gradient


def entropy(targets: np.ndarray) -> float:
    """mean_i r_i H(Y_i / r_i), 0 for a zero row."""
    total = 0.0
    for row in targets:
        mass = sum(row)
        total -= sum(mass * (y / mass) * math.log(y / mass) for y in row if y > 0)
    return total / len(targets)


def similarity_loss(
    cosines: np.ndarray,
    logit_scale: float,
    a_v: np.ndarray,
    a_t: np.ndarray,
    *,
    target: str,
    norm: str | tuple[str, float] = "l1",
) -> dict[str, float | np.ndarray]:
    """Loss, entropy, and the gradients by cosines and logit_scale."""
    scale = math.exp(logit_scale)
    matrix = similarity(a_v, a_t)
    image_to_text = target_rows(matrix, target, norm)
    text_to_image = target_rows(matrix.T, target, norm)
    rows, rows_gradient = soft_cross_entropy(scale * cosines, image_to_text)
    columns, columns_gradient = soft_cross_entropy(scale * cosines.T, text_to_image)
    by_logits = (rows_gradient + columns_gradient.T) / 2
    return {
        "loss": (rows + columns) / 2,
        "entropy": (entropy(image_to_text) + entropy(text_to_image)) / 2,
        "d_cosines": scale * by_logits,
        "d_logit_scale": float(np.sum(by_logits * scale * cosines)),
    }


def contrastive_loss(
    v: np.ndarray,
    t: np.ndarray,
    logit_scale: float,
    a_v: np.ndarray,
    a_t: np.ndarray,
    *,
    valid: np.ndarray,
    target: str,
    norm: str | tuple[str, float] = "l1",
) -> dict[str, float | np.ndarray]:
    """The loss of the valid pairs alone; gradients of the others are zero."""
    keep = np.flatnonzero(valid)
    v, t = v.astype(np.float64), t.astype(np.float64)
    cosines = np.zeros((len(keep), len(keep)))
    for i, row in enumerate(keep):
        for j, column in enumerate(keep):
            cosines[i, j] = sum(v[row] * t[column])
    result = similarity_loss(cosines, logit_scale, a_v[keep], a_t[keep], target=target, norm=norm)
    by_v, by_t = np.zeros_like(v), np.zeros_like(t)
    for i, row in enumerate(keep):
        for j, column in enumerate(keep):
            by_v[row] += result["d_cosines"][i, j] * t[column]
            by_t[column] += result["d_cosines"][i, j] * v[row]
    return {**result, "d_v": by_v, "d_t": by_t}
