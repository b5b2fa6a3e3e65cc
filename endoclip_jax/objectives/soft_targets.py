"""Target matrices of the contrastive losses: who should match whom, and how much.

Four patients; the first two have the same attributes, the third shares half of them, the
fourth has none recorded (a zero row, whose cosine with everything is 0):

            M = cos(A_v, A_t)         M+ = max(M, I)          Y = rows of M+ / their sum

          t1   t2   t3   t4        t1   t2   t3   t4          t1   t2   t3   t4
    v1 [ 1    1   0.5   0  ]    [ 1    1   0.5   0  ]      [ 0.4  0.4  0.2   0  ]
    v2 [ 1    1   0.5   0  ]    [ 1    1   0.5   0  ]      [ 0.4  0.4  0.2   0  ]
    v3 [0.5  0.5   1    0  ]    [0.5  0.5   1    0  ]      [0.25 0.25  0.5   0  ]
    v4 [ 0    0    0    0  ]    [ 0    0    0    1  ]      [ 0    0    0     1  ]

One-hot targets are ``I``; multi-positive ones share a row among the patients of the very same
attributes (``[0.5 0.5 0 0]`` in the first row). The text-to-image direction takes the rows of
``M`` transposed and normalises them on their own: ``Y^{t->v}`` is not ``Y^{v->t}`` transposed.
"""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num

from endoclip_jax.errors import UserError
from endoclip_jax.models.layers import MASKED, l2_normalize

TARGETS = ("onehot", "morphology", "multi_positive")
TargetNorm = str | tuple[str, float]

SAME_ATTRIBUTES = 1 - 1e-5  # cosine of equal multi-hot rows, less float32 rounding


def parse_target_norm(text: str) -> TargetNorm:
    """``"l1" | "none" | "power(4)" | "softmax(0.1)"`` -> ``"l1" | "none" | ("power", 4.0) | …``.

    Raises ``UserError`` for anything else; the number must be positive.
    """
    if text in ("l1", "none"):
        return text
    match = re.fullmatch(r"(power|softmax)\(\s*([0-9.]+(?:e-?[0-9]+)?)\s*\)", text)
    try:
        value = float(match.group(2)) if match else 0.0
    except ValueError:
        value = 0.0
    if match is None or value <= 0:
        raise UserError(
            f"the target norm {text!r} is not understood; "
            "use l1, none, power(p) or softmax(tau) with a positive number"
        )
    return match.group(1), value


def check_target(
    target: str,
    norm: TargetNorm,
    a_v: Num[Array, "b a"] | None,
    a_t: Num[Array, "b a"] | None,
) -> None:
    """Raises ``ValueError`` for a target or norm that is not known, or has no attributes."""
    if target not in TARGETS:
        raise ValueError(f"unknown target {target!r}; known: {', '.join(TARGETS)}")
    _check_norm(norm)
    if target != "onehot" and (a_v is None or a_t is None):
        raise ValueError(f"target {target!r} needs the attributes a_v and a_t")


def morphological_similarity(a_v: Num[Array, "b a"], a_t: Num[Array, "b a"]) -> Float[Array, "b b"]:
    """``M_ij``, the cosine of image attributes i and text attributes j; 0 for a zero row."""
    a_v, a_t = l2_normalize(a_v), l2_normalize(a_t)
    return jnp.einsum("ia,ja->ij", a_v, a_t, precision=jax.lax.Precision.HIGHEST)


def soft_targets(
    similarity: Float[Array, "b b"],
    norm: TargetNorm = "l1",
    valid: Bool[Array, " b"] | None = None,
) -> Float[Array, "b b"]:
    """Targets of one direction from ``M`` (Endo-CLIP, Eq. 3); give ``M.T`` for the other.

    ``norm``: ``"l1"`` rows of ``max(M, I)`` over their sum; ``("power", p)`` the same of
    ``max(M, I)**p``; ``("softmax", tau)`` row softmax of ``max(M, I) / tau``; ``"none"`` ``M``
    itself, rows unnormalised and no forced diagonal. Rows and columns that are not ``valid``
    are zero and take no part in the normalisation.
    """
    _check_norm(norm)
    size = similarity.shape[0]
    pairs = jnp.ones((size, size), bool) if valid is None else valid[:, None] & valid[None, :]
    if norm == "none":
        return jnp.where(pairs, similarity, 0)
    floored = jnp.maximum(similarity, jnp.eye(size))
    if norm == "l1":
        return _rows_to_one(floored, pairs)
    assert not isinstance(norm, str)
    kind, value = norm
    if kind == "power":
        return _rows_to_one(floored**value, pairs)
    logits = jnp.where(pairs, floored / value, MASKED)
    return jnp.where(pairs, jax.nn.softmax(logits, axis=1), 0)


def multi_positive_targets(
    similarity: Float[Array, "b b"], valid: Bool[Array, " b"] | None = None
) -> Float[Array, "b b"]:
    """Rows shared equally among the patients whose attributes are the same (cosine 1)."""
    same = (similarity >= SAME_ATTRIBUTES).astype(jnp.float32)
    return soft_targets(same, "l1", valid)


def target_entropy(
    targets: Float[Array, "b b"], valid: Bool[Array, " b"] | None = None
) -> Float[Array, ""]:
    """``mean_i r_i H(Y_i / r_i)`` in nats, ``r_i`` the row's sum: the floor of the loss.

    A zero row contributes 0; the mean is over ``valid`` rows.
    """
    sums = jnp.sum(targets, axis=1)
    safe_sums = jnp.where(sums > 0, sums, 1)
    positive = targets > 0
    logs = jnp.log(jnp.where(positive, targets, 1)) - jnp.log(safe_sums)[:, None]
    return masked_mean(-jnp.sum(jnp.where(positive, targets * logs, 0), axis=1), valid)


def masked_mean(
    values: Float[Array, " b"], valid: Bool[Array, " b"] | None = None
) -> Float[Array, ""]:
    """Mean of the valid entries; 0 when there are none."""
    if valid is None:
        return jnp.mean(values)
    return jnp.sum(jnp.where(valid, values, 0)) / jnp.maximum(jnp.sum(valid), 1)


def _check_norm(norm: TargetNorm) -> None:
    kind, known = (
        (norm, ("l1", "none")) if isinstance(norm, str) else (norm[0], ("power", "softmax"))
    )
    if kind not in known:
        raise ValueError(f"unknown target norm {kind!r}")


def _rows_to_one(weights: Float[Array, "b b"], pairs: Bool[Array, "b b"]) -> Float[Array, "b b"]:
    weights = jnp.where(pairs, weights, 0)
    sums = jnp.sum(weights, axis=1, keepdims=True)
    return weights / jnp.where(sums > 0, sums, 1)
