"""SSCD's objective: copies of an image match, mixed images match all they hold, others stay apart.

    l_ij  = -log( e^{s_ij/tau} / (e^{s_ij/tau} + sum_{k shares nothing with i} e^{s_ik/tau}) )
    nce   = mean_i mean_{j != i shares something with i} l_ij
    apart = -mean_i log min_{k shares nothing with i} |z_i - z_k|
    loss  = nce + weight * apart

Pizzi et al. 2022, *A Self-Supervised Descriptor for Image Copy Detection* (arXiv 2202.10261),
sections 4.1 to 4.3: InfoNCE over the global batch, the Kozachenko-Leonenko estimator of the
descriptors' entropy, and mixed images, whose several matches count evenly.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from endoclip_jax.models.layers import MASKED
from endoclip_jax.objectives.soft_targets import masked_mean

Terms = dict[str, jax.Array]

_SMALLEST = 1e-6  # of a squared distance: descriptors that coincide repel no more


def copy_detection_loss(
    z: Float[Array, "n d"],
    contents: Float[Array, "n m"],
    *,
    temperature: float,
    entropy_weight: float,
    valid: Bool[Array, " n"],
) -> tuple[Float[Array, ""], Terms]:
    """Loss of the global batch by unit descriptors, and its terms.

    Args:
      contents: share of each of `m` sources in an image; two images match that have one in common.
      valid: rows that are not stand in no sum.

    Returns:
      The loss, and `excess` (the loss: nothing of it is a target's), `entropy` (0), `info_nce`,
      `differential_entropy` (of descriptors, to a constant), `match_cosine` (mean over matches) and
      `nearest_cosine` (mean over the nearest that do not match).
    """
    z = z.astype(jnp.float32)
    cosines = jnp.einsum("id,jd->ij", z, z, precision=jax.lax.Precision.HIGHEST)
    cosines = jnp.where(valid[:, None] & valid[None, :], cosines, 0)
    shared = jnp.einsum("im,jm->ij", contents, contents) > 0
    both = valid[:, None] & valid[None, :]
    others = ~shared & both
    matches = (shared & both & ~jnp.eye(len(z), dtype=bool)).astype(jnp.float32)

    logits = cosines / temperature
    against = jax.nn.logsumexp(jnp.where(others, logits, MASKED), axis=1, keepdims=True)
    pairs = jnp.logaddexp(logits, against) - logits
    count = jnp.sum(matches, axis=1)
    info_nce = masked_mean(jnp.sum(matches * pairs, axis=1) / jnp.maximum(count, 1), valid)

    nearest = jnp.max(jnp.where(others, cosines, -1), axis=1)
    distance = jnp.sqrt(jnp.maximum(2 - 2 * nearest, _SMALLEST))
    differential_entropy = masked_mean(jnp.log(distance), valid)
    loss = info_nce - entropy_weight * differential_entropy
    return loss, {
        "entropy": jnp.zeros(()),
        "excess": loss,
        "info_nce": info_nce,
        "differential_entropy": differential_entropy,
        "match_cosine": jnp.sum(matches * cosines) / jnp.maximum(jnp.sum(matches), 1),
        "nearest_cosine": masked_mean(nearest, valid),
    }


def partners(valid: Bool[Array, " b"]) -> Float[Array, "b b"]:
    """Row i has its 1 at the next valid row after i, the first after the last; 0 if not valid.

    By rank among the valid rows, so that padding, of which each number of devices has its own
    amount, changes nobody's partner.
    """
    rank = jnp.cumsum(valid) - 1
    wanted = jnp.where(valid, (rank + 1) % jnp.maximum(jnp.sum(valid), 1), -1)
    found = (wanted[:, None] == rank[None, :]) & valid[None, :] & valid[:, None]
    return found.astype(jnp.float32)


def share_kept(
    chance: Float[Array, "b v"], lot: Float[Array, "b v"], odds: float
) -> Float[Array, "b v"]:
    """How much of itself each image keeps: 1, or with probability `odds` a draw of Beta(2, 2).

    Args:
      chance, lot: even draws between 0 and 1; the second is taken through the distribution's
        inverse, of 3x^2 - 2x^3.
    """
    drawn = 0.5 - jnp.sin(jnp.arcsin(1 - 2 * lot) / 3)
    return jnp.where(chance < odds, drawn, 1.0)
