"""DINO's objective: crops seen by a student predict a centred, sharpened teacher's view of others.

    p_t = softmax((g_t - c) / tau_t)     teacher, the global views alone, no gradient
    q_s = softmax(g_s / tau_s)           student, all views
    loss = mean over t, s != t of -sum_k p_t(k) log q_s(k)

Caron et al. 2021, *Emerging Properties in Self-Supervised Vision Transformers* (arXiv 2104.14294),
Eq. 3 to 5. A cross-entropy is the teacher's entropy and the divergence of the student from it, so
the two ways to collapse show in the terms: `entropy` at log K (all prototypes alike) or at 0 with
`marginal_entropy` at 0 (one prototype for all), either with `excess`, the divergence, at 0.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from endoclip_jax.objectives.soft_targets import masked_mean

Terms = dict[str, jax.Array]


def distillation_loss(
    student: Float[Array, "b s k"],
    teacher: Float[Array, "b t k"],
    centre: Float[Array, " k"],
    *,
    student_temperature: float,
    teacher_temperature: float | Float[Array, ""],
    valid: Bool[Array, " b"],
) -> tuple[Float[Array, ""], Terms]:
    """Loss of the global batch, and its terms.

    Args:
      student: outputs for all views; the first `t` are those the teacher saw.
      teacher: outputs for the global views; no gradient flows into them.
      valid: rows that are not take no part.

    Returns:
      The loss, and `entropy` (of the teacher's targets), `excess` (the divergence of the student
      from them), `marginal_entropy` (of the teacher's mean target) and `teacher_mean [k]`, the
      batch's mean output, which the centre follows.
    """
    student, teacher = student.astype(jnp.float32), teacher.astype(jnp.float32)
    teacher, centre = jax.lax.stop_gradient(teacher), jax.lax.stop_gradient(centre)
    log_targets = jax.nn.log_softmax((teacher - centre) / teacher_temperature)
    targets = jnp.exp(log_targets)
    log_student = jax.nn.log_softmax(student / student_temperature)
    # [b, t, s]: views are few, prototypes many.
    crossed = -jnp.einsum("btk,bsk->bts", targets, log_student, precision=jax.lax.Precision.HIGHEST)
    global_views, views = teacher.shape[1], student.shape[1]
    others = 1 - jnp.eye(global_views, views)
    pairs = global_views * (views - 1)
    loss = masked_mean(jnp.sum(crossed * others, axis=(1, 2)) / pairs, valid)
    entropy = masked_mean(-jnp.sum(targets * log_targets, axis=(1, 2)) / global_views, valid)
    mean_target = masked_mean_rows(jnp.mean(targets, axis=1), valid)
    return loss, {
        "entropy": entropy,
        "excess": loss - entropy,
        "marginal_entropy": -jnp.sum(mean_target * jnp.log(jnp.maximum(mean_target, 1e-30))),
        "teacher_mean": masked_mean_rows(jnp.mean(teacher, axis=1), valid),
    }


def masked_mean_rows(rows: Float[Array, "b k"], valid: Bool[Array, " b"]) -> Float[Array, " k"]:
    """Mean of the valid rows; zero where there are none."""
    weight = valid.astype(jnp.float32)
    total = jnp.sum(jnp.where(valid[:, None], rows, 0), axis=0)
    return total / jnp.maximum(jnp.sum(weight), 1)


def moved_towards(slow: Array, fast: Array, momentum: float | Float[Array, ""]) -> Array:
    """Exponential moving average: `momentum` of the slow one, the rest of the fast one."""
    return momentum * slow + (1 - momentum) * fast


def momentum_at(updates: Float[Array, ""], total: int, start: float) -> Float[Array, ""]:
    """The teacher's momentum: from `start` to 1 over `total` updates by a cosine (section 3.1)."""
    share = jnp.minimum(updates / total, 1)
    return 1 - (1 - start) * (jnp.cos(jnp.pi * share) + 1) / 2


def teacher_temperature_at(
    updates: Float[Array, ""], warmup: int, start: float, end: float
) -> Float[Array, ""]:
    """The teacher's temperature: linear from `start` to `end` over `warmup` updates, then there."""
    return start + (end - start) * jnp.minimum(updates / max(warmup, 1), 1)
