"""AdamW as CLIP uses it: linear warm-up, cosine to zero, clipping by global norm, decay on kernels.

The temperature is a parameter like any other but for two things: it never decays, and after every
update it is projected to [0, log 100]. A clamp inside the forward pass has no gradient at 100,
where CLIP's checkpoint starts, and would freeze it for good.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

MAX_LOGIT_SCALE = math.log(100.0)
_CLIP_NORM = 1.0
_BETAS = (0.9, 0.98)
_EPS = 1e-6


@dataclass(frozen=True)
class Schedule:
    """Learning rate over `steps` updates: linear from 0 over `warmup_steps`, then cosine to 0."""

    steps: int
    warmup_steps: int
    learning_rate: float

    def __call__(self, step: jax.Array | int) -> jax.Array:
        return optax.warmup_cosine_decay_schedule(
            init_value=0.0,
            peak_value=self.learning_rate,
            warmup_steps=self.warmup_steps,
            decay_steps=max(self.steps, self.warmup_steps + 1),
        )(step)


def path_names(path: Sequence[Any]) -> tuple[str, ...]:
    """The dictionary keys along a tree path."""
    return tuple(str(getattr(entry, "key", entry)) for entry in path)


def decayed(params: Any) -> Any:
    """True for kernels; False for embeddings, norms, biases and `logit_scale`."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: path_names(path)[-1] == "kernel", params
    )


def clip_by_global_norm(limit: float) -> optax.GradientTransformation:
    """`optax.clip_by_global_norm` by one factor for all: same state, same numbers to rounding.

    Optax's own divides every element. XLA keeps the result of a division but repeats a product in
    each loop that needs it, so that here no scaled copy of all gradients is written and read again.
    """

    def update(grads: Any, state: optax.EmptyState, _params: Any = None) -> tuple[Any, Any]:
        norm = optax.tree.norm(grads)
        factor = jnp.where(norm < limit, 1.0, limit / norm)
        return jax.tree.map(lambda grad: grad * factor.astype(grad.dtype), grads), state

    return optax.GradientTransformation(lambda _params: optax.EmptyState(), update)


def make_optimizer(
    schedule: Schedule, weight_decay: float, frozen: Sequence[tuple[str, ...]] = ()
) -> optax.GradientTransformation:
    """AdamW with CLIP's constants; parameters below a `frozen` path prefix never move."""
    adamw = optax.chain(
        clip_by_global_norm(_CLIP_NORM),
        optax.adamw(
            schedule,
            b1=_BETAS[0],
            b2=_BETAS[1],
            eps=_EPS,
            weight_decay=weight_decay,
            mask=decayed,
        ),
    )
    if not frozen:
        return adamw

    def label(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: (
                "frozen"
                if any(path_names(path)[: len(prefix)] == prefix for prefix in frozen)
                else "trained"
            ),
            params,
        )

    return optax.multi_transform({"trained": adamw, "frozen": optax.set_to_zero()}, label)


def project_logit_scale(params: Any) -> Any:
    """Brings every `logit_scale` of the tree back to [0, log 100]."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: (
            jnp.clip(leaf, 0.0, MAX_LOGIT_SCALE) if path_names(path)[-1] == "logit_scale" else leaf
        ),
        params,
    )
