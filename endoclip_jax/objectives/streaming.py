"""The contrastive loss over the global batch in memory linear in the batch.

The same function as ``dense.contrastive_loss``: every image against every text, both directions,
all devices. With ``L_i`` the logsumexp of row i, and targets ``Y`` that are the rows of weights
``w`` over their sums,

    soft_ce = mean_i(r_i L_i - sum_j Y_ij S_ij),      w_ij = f(M_ij) + (1 - f(M_ii)) [i = j]

the logsumexps of rows and columns come from one pass over tiles (``tiles.py``), which are formed
again in the backward pass. What the targets ask for beside them:

    target           f(M)                sum_j w_ij S_ij from        entropy from
    onehot           0                   the diagonal                nothing: it is 0
    l1, none         M                   sums over attributes        tiles of M
    power(p)         M^p                 tiles of M and S            tiles of M
    softmax(tau)     exp((M - 1)/tau)    tiles of M and S            tiles of M
    multi_positive   [M = 1]             tiles of M and S            tiles of M

Under ``none`` ``w`` is ``M`` itself, without the term of the diagonal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Num

from endoclip_jax.models.layers import l2_normalize
from endoclip_jax.objectives.dense import ContrastiveLoss, Metrics
from endoclip_jax.objectives.soft_targets import (
    SAME_ATTRIBUTES,
    TargetNorm,
    check_target,
    masked_mean,
)
from endoclip_jax.objectives.tiles import MAX_TILE, Ring, Sums, tiled_sums


def streaming_loss(
    mesh: Mesh, axes: tuple[str, ...] = ("data",), tile: int = MAX_TILE
) -> ContrastiveLoss:
    """``dense.contrastive_loss`` of a batch that is split over these axes of a mesh.

    Any batch size on any number of devices; for use under ``jax.jit``. Attributes are not
    negative, and constants: no gradient reaches them.
    """

    def contrastive_loss(
        v: Float[Array, "b d"],
        t: Float[Array, "b d"],
        logit_scale: Float[Array, ""],
        a_v: Num[Array, "b a"] | None = None,
        a_t: Num[Array, "b a"] | None = None,
        *,
        target: str = "onehot",
        target_norm: TargetNorm = "l1",
        valid: Bool[Array, " b"] | None = None,
    ) -> tuple[Float[Array, ""], Metrics]:
        check_target(target, target_norm, a_v, a_t)
        wide = jnp.promote_types(v.dtype, jnp.float32)
        weights = None if target == "onehot" else Weights(target, target_norm)
        valid = jnp.ones(len(v), bool) if valid is None else valid
        ring = Ring(mesh, axes, tile, weights, linear=weights is not None and weights.linear)
        batch = _Batch(
            v.astype(wide),
            t.astype(wide),
            logit_scale.astype(wide),
            valid,
            None if weights is None else _constant_units(a_v, valid),
            None if weights is None else _constant_units(a_t, valid),
        ).padded(ring.size)

        rows, columns, own_logits = tiled_sums(ring, *batch)
        own = _own_pairs(weights, batch, own_logits)
        normalized = weights is None or weights.normalized
        loss, entropy = (
            (one + other) / 2
            for one, other in zip(
                _direction(rows, own, batch.valid, normalized),
                _direction(columns, own, batch.valid, normalized),
                strict=True,
            )
        )
        return loss, {"excess": loss - entropy, "entropy": entropy}

    return contrastive_loss


@dataclass(frozen=True)
class Weights:
    """``f`` of the table above: the target weight of an image and a text by their similarity."""

    target: str
    norm: TargetNorm

    @property
    def linear(self) -> bool:
        """Whether ``f`` is the similarity itself, so that sums with it need no tile."""
        return self.target == "morphology" and self.norm in ("l1", "none")

    @property
    def normalized(self) -> bool:
        """Whether the own pair weighs 1 and rows are divided by their sums."""
        return self.target != "morphology" or self.norm != "none"

    def __call__(self, similarity: Array) -> Array:
        if self.target == "multi_positive":
            return (similarity >= SAME_ATTRIBUTES).astype(similarity.dtype)
        if isinstance(self.norm, str):
            return similarity
        kind, value = self.norm
        return similarity**value if kind == "power" else jnp.exp((similarity - 1) / value)


class _Batch(NamedTuple):
    """The arguments of ``tiled_sums``."""

    v: Array
    t: Array
    logit_scale: Array
    valid: Array
    a_v: Array | None
    a_t: Array | None

    def padded(self, devices: int) -> _Batch:
        """With rows that are not valid up to a multiple of the number of devices."""
        missing = -len(self.v) % devices
        if not missing:
            return self
        return jax.tree.map(
            lambda x: jnp.pad(x, [(0, missing)] + [(0, 0)] * (x.ndim - 1)) if x.ndim else x, self
        )


class _OwnPairs(NamedTuple):
    """The diagonal: what a pair's weight lacks to 1, its ``f log f``, and its logit; ``[b]``."""

    lacking: Array
    weight_log: Array
    logit: Array


def _constant_units(a: Array | None, valid: Array) -> Array:
    assert a is not None
    return jax.lax.stop_gradient(l2_normalize(jnp.where(valid[:, None], a, 0)))


def _own_pairs(weights: Weights | None, batch: _Batch, logit: Array) -> _OwnPairs:
    if weights is None:
        return _OwnPairs(jnp.ones_like(logit), jnp.zeros_like(logit), logit)
    assert batch.a_v is not None and batch.a_t is not None
    weight = weights(jnp.sum(batch.a_v * batch.a_t, axis=1))
    return _OwnPairs(1 - weight, jax.scipy.special.xlogy(weight, weight), logit)


def _direction(
    sums: Sums, own: _OwnPairs, valid: Array, normalized: bool
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Loss and target entropy of one direction."""
    log_partition, weight, weight_log, product = sums
    if normalized:
        weight += own.lacking
        weight_log -= own.weight_log  # the own pair's weight is 1, and 1 log 1 = 0
        product += own.lacking * own.logit
    positive = jnp.where(weight > 0, weight, 1)
    share = 1 / positive if normalized else jnp.ones_like(weight)  # Y = share w
    loss = share * (weight * log_partition - product)
    entropy = share * (weight * jnp.log(positive) - weight_log)
    return masked_mean(loss, valid), masked_mean(entropy, valid)
