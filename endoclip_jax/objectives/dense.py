"""The contrastive losses over the global batch, in plain array code (the oracle of speed).

    S = exp(logit_scale) V T^T
    soft_ce(S, Y) = mean_i(r_i logsumexp_j S_ij - sum_j Y_ij S_ij),  r_i = sum_j Y_ij
    loss = (soft_ce(S, Y^{v->t}) + soft_ce(S^T, Y^{t->v})) / 2

Endo-CLIP, Eq. 2 (``Y = I``), Eq. 3 and Eq. 5 (``Y`` from attributes). Jitted over arrays whose
batch is sharded, the loss is that of the whole batch, whatever the number of devices. Rows that
are not ``valid`` (padding of uneven batches) stand in no logsumexp, sum or mean and get zero
gradients. Beside the loss comes its ``entropy``, what no training can remove, and the
``excess``, loss minus entropy, which it can.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Num

from endoclip_jax.models.layers import MASKED
from endoclip_jax.objectives.soft_targets import (
    TargetNorm,
    check_target,
    masked_mean,
    morphological_similarity,
    multi_positive_targets,
    soft_targets,
    target_entropy,
)

Metrics = dict[str, Float[Array, ""]]
ContrastiveLoss = Callable[..., tuple[Float[Array, ""], Metrics]]  # as `contrastive_loss` below


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
    """Loss of ``b`` image-text pairs by unit embeddings, and ``{"excess", "entropy"}``.

    ``logit_scale`` is the logarithm of the inverse temperature, used unclamped. ``a_v, a_t``:
    attributes of images and texts, for every ``target`` but ``"onehot"``; ``target_norm`` (see
    ``soft_targets``) belongs to ``"morphology"``.
    """
    wide = jnp.promote_types(v.dtype, jnp.float32)
    v, t = v.astype(wide), t.astype(wide)
    if valid is not None:
        v, t = jnp.where(valid[:, None], v, 0), jnp.where(valid[:, None], t, 0)
    cosines = jnp.einsum("id,jd->ij", v, t, precision=jax.lax.Precision.HIGHEST)
    return similarity_loss(
        cosines, logit_scale, a_v, a_t, target=target, target_norm=target_norm, valid=valid
    )


def similarity_loss(
    cosines: Float[Array, "b b"],
    logit_scale: Float[Array, ""],
    a_v: Num[Array, "b a"] | None = None,
    a_t: Num[Array, "b a"] | None = None,
    *,
    target: str = "onehot",
    target_norm: TargetNorm = "l1",
    valid: Bool[Array, " b"] | None = None,
) -> tuple[Float[Array, ""], Metrics]:
    """``contrastive_loss`` of a given matrix, rows images and columns texts.

    For similarities that are no product of two sets of vectors (pairwise cross-attention).
    """
    wide = jnp.promote_types(cosines.dtype, jnp.float32)
    logits = jnp.exp(logit_scale.astype(wide)) * cosines.astype(wide)
    image_to_text, text_to_image = _targets(
        cosines.shape[0], a_v, a_t, target=target, target_norm=target_norm, valid=valid
    )
    loss = soft_cross_entropy(logits, image_to_text, valid)
    loss += soft_cross_entropy(logits.T, text_to_image, valid)
    entropy = target_entropy(image_to_text, valid) + target_entropy(text_to_image, valid)
    return loss / 2, {"excess": (loss - entropy) / 2, "entropy": entropy / 2}


def soft_cross_entropy(
    logits: Float[Array, "b b"],
    targets: Float[Array, "b b"],
    valid: Bool[Array, " b"] | None = None,
) -> Float[Array, ""]:
    """``mean_i(r_i logsumexp_j S_ij - sum_j Y_ij S_ij)``, ``r_i`` the sum of target row i."""
    if valid is not None:
        logits = jnp.where(valid[None, :], logits, MASKED)
        # A masked label must meet a zero, not the mask: 0 * MASKED is a rounding trap.
        products = jnp.where(valid[None, :], targets * logits, 0)
    else:
        products = targets * logits
    log_partition = jax.nn.logsumexp(logits, axis=1)
    return masked_mean(jnp.sum(targets, axis=1) * log_partition - jnp.sum(products, axis=1), valid)


def two_sentence_loss(
    v: Float[Array, "b d"],
    sentences: Float[Array, "2 d"],
    label: Int[Array, " b"],
    logit_scale: Float[Array, ""],
    valid: Bool[Array, " b"] | None = None,
) -> tuple[Float[Array, ""], Metrics]:
    """``contrastive_loss(v, sentences[label], ...)`` with one-hot targets, from ``[b, 2]`` logits.

    Exact in value and in the gradients of images, sentences and ``logit_scale``: a row of the
    full matrix holds sentence c ``n_c`` times, so its logsumexp is ``log sum_c n_c e^{s_ic}``;
    its columns are copies of two. Multi-positive targets have this same loss and gradient; the
    ``entropy`` given is theirs, ``sum_c n_c log n_c / b``, the floor the data allow.
    """
    v, sentences = v.astype(jnp.float32), sentences.astype(jnp.float32)
    valid = jnp.ones(label.shape, bool) if valid is None else valid
    v = jnp.where(valid[:, None], v, 0)
    cosines = jnp.einsum("id,cd->ic", v, sentences, precision=jax.lax.Precision.HIGHEST)
    logits = jnp.exp(logit_scale.astype(jnp.float32)) * cosines

    member = (label[:, None] == jnp.arange(2)) & valid[:, None]
    counts = jnp.sum(member, axis=0).astype(jnp.float32)
    log_counts = jnp.log(jnp.maximum(counts, 1))
    rows = jnp.where(counts > 0, logits + log_counts, MASKED)
    columns = jnp.where(valid[:, None], logits, MASKED)

    log_partition = masked_mean(jax.nn.logsumexp(rows, axis=1), valid)
    shares = counts / jnp.maximum(jnp.sum(counts), 1)
    log_partition += jnp.sum(shares * jax.nn.logsumexp(columns, axis=0))
    matched = masked_mean(jnp.sum(jnp.where(member, logits, 0), axis=1), valid)
    loss = log_partition / 2 - matched
    entropy = jnp.sum(shares * log_counts)
    return loss, {"excess": loss - entropy, "entropy": entropy}


def _targets(
    size: int,
    a_v: Num[Array, "b a"] | None,
    a_t: Num[Array, "b a"] | None,
    *,
    target: str,
    target_norm: TargetNorm,
    valid: Bool[Array, " b"] | None,
) -> tuple[Float[Array, "b b"], Float[Array, "b b"]]:
    """Image-to-text and text-to-image targets."""
    check_target(target, target_norm, a_v, a_t)
    if target == "onehot":
        identity = soft_targets(jnp.eye(size), "none", valid)
        return identity, identity
    assert a_v is not None and a_t is not None
    similarity = morphological_similarity(a_v, a_t)
    if target == "multi_positive":
        return (
            multi_positive_targets(similarity, valid),
            multi_positive_targets(similarity.T, valid),
        )
    return (
        soft_targets(similarity, target_norm, valid),
        soft_targets(similarity.T, target_norm, valid),
    )
