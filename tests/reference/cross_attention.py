"""Patient-level cross-attention (Endo-CLIP, Eq. 4), float64, one image and sentence at a time.

``weights`` maps ``image_to_text`` and ``text_to_image`` to ``{"query", "key", "value"}``, each a
matrix ``W`` that multiplies a column vector. Images and texts come as ragged lists: there is no
padding here to get wrong.
"""

from __future__ import annotations

import math

import numpy as np

Weights = dict[str, dict[str, np.ndarray]]


def unit(x: np.ndarray) -> np.ndarray:
    length = math.sqrt(float(sum(x * x)))
    return x / length if length else x


def normalized(x: np.ndarray) -> np.ndarray:
    centred = x - x.mean()
    return centred / math.sqrt(float((centred**2).mean()) + 1e-6)


def attend(
    queries: np.ndarray, context: np.ndarray, w: dict[str, np.ndarray], qk_norm: bool
) -> tuple[list[np.ndarray], np.ndarray]:
    """What each query gets from the context, and the weights ``[queries, context]``."""
    prepare = normalized if qk_norm else (lambda x: x)
    outputs, weights = [], np.zeros((len(queries), len(context)))
    for i, query in enumerate(queries):
        logits = []
        for item in context:
            projected = w["query"] @ prepare(query), w["key"] @ prepare(item)
            logits.append(float(projected[0] @ projected[1]) / math.sqrt(len(query)))
        shares = [math.exp(value - max(logits)) for value in logits]
        weights[i] = [share / sum(shares) for share in shares]
        outputs.append(sum(weights[i, j] * (w["value"] @ x) for j, x in enumerate(context)))
    return outputs, weights


def patient_vectors(
    images: list[np.ndarray],
    texts: list[np.ndarray],
    weights: Weights,
    *,
    attention: bool = True,
    qk_norm: bool = True,
    residual: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """``(V_hat, T_hat)`` of the literal form, or of plain averaging."""
    v_hat, t_hat = [], []
    for v, t in zip(images, texts, strict=True):
        new_v, new_t = list(v), list(t)
        if attention:
            new_v = attend(v, t, weights["image_to_text"], qk_norm)[0]
            new_t = attend(t, v, weights["text_to_image"], qk_norm)[0]
            if residual:
                new_v = [o + x for o, x in zip(new_v, v, strict=True)]
                new_t = [o + x for o, x in zip(new_t, t, strict=True)]
        v_hat.append(unit(sum(new_v) / len(new_v)))
        t_hat.append(unit(sum(new_t) / len(new_t)))
    return np.stack(v_hat), np.stack(t_hat)


def pairwise_similarity(
    images: list[np.ndarray],
    texts: list[np.ndarray],
    weights: Weights,
    *,
    qk_norm: bool = True,
    residual: bool = False,
) -> np.ndarray:
    """Every image patient (row) against every text patient (column)."""
    matrix = np.zeros((len(images), len(texts)))
    for i, v in enumerate(images):
        for j, t in enumerate(texts):
            pair = patient_vectors([v], [t], weights, qk_norm=qk_norm, residual=residual)
            matrix[i, j] = float(pair[0][0] @ pair[1][0])
    return matrix
