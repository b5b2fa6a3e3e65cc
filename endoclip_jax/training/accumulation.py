"""The gradient of a batch whose towers do not fit at once, with all of its negatives.

A contrastive loss is no mean over patients: averaging the gradients of small batches would leave
out most negatives. What it needs of the whole batch are the features alone, so that the exact
gradient takes two passes over the towers:

    1. features of each part, without gradients              parts x forward
    2. loss of all features; its gradient by features        once
    3. features of each part again, pulled back from 2       parts x (forward + backward)

Activations are those of one part; the price is one more forward pass. (GradCache: Gao et al.,
*Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup*, 2021.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from endoclip_jax.training.state import Batch, Loss

Embed = Callable[[Any, Batch], Any]
Contrast = Callable[[Any, Any, Batch], tuple[jax.Array, dict[str, jax.Array]]]


def in_parts(embed: Embed, contrast: Contrast, *, parts: int) -> Loss:
    """The loss `contrast(params, embed(params, batch), batch)`, its gradient worked off in parts.

    Only the loss has gradients, by the parameters; its terms are numbers to be shown.

    Args:
      embed: features, a tree of arrays with a row for each row of the batch; a row's features
        depend on that row alone.
      contrast: the loss of all features, and its terms; other parameters may enter here.
      parts: how many. Where they divide a device's rows, each has its share of every device's.
    """

    def features_of(params: Any, pieces: Batch, size: int) -> Any:
        return _merged(jax.lax.map(lambda piece: embed(params, piece), pieces), size)

    @jax.custom_vjp
    def loss(params: Any, batch: Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
        features = features_of(params, _split(batch, parts), _rows(batch))
        return contrast(params, features, batch)

    def forward(params: Any, batch: Batch) -> tuple[Any, Any]:
        pieces = _split(batch, parts)
        features = features_of(params, pieces, _rows(batch))
        result, pull_contrast, terms = jax.vjp(
            lambda params, features: contrast(params, features, batch),
            params,
            features,
            has_aux=True,
        )
        gradient, by_features = pull_contrast(jnp.ones_like(result))

        def add(total: Any, piece: tuple[Batch, Any]) -> tuple[Any, None]:
            rows, by_rows = piece
            _, pull = jax.vjp(lambda own: embed(own, rows), params)
            return jax.tree.map(jnp.add, total, pull(by_rows)[0]), None

        pulled = pieces, _split(by_features, parts, jnp.zeros_like)
        gradient, _ = jax.lax.scan(add, gradient, pulled)
        return (result, terms), gradient

    def backward(gradient: Any, cotangents: tuple[jax.Array, Any]) -> tuple[Any, None]:
        return jax.tree.map(lambda x: cotangents[0] * x, gradient), None

    loss.defvjp(forward, backward)
    return loss


def _rows(batch: Batch) -> int:
    return len(jax.tree.leaves(batch)[0])


def _split(tree: Any, parts: int, filler: Callable[[jax.Array], jax.Array] = lambda x: x) -> Any:
    """Rows `[b, ...]` as `[parts, ceil(b / parts), ...]`; part p has every parts-th row from p on.

    So a part takes its rows evenly from the devices over which `b` is split, and none moves.
    `filler` of the first row fills up what does not divide.
    """

    def of(x: jax.Array) -> jax.Array:
        missing = -len(x) % parts
        if missing:
            x = jnp.concatenate([x, jnp.repeat(filler(x[:1]), missing, axis=0)])
        return jnp.swapaxes(x.reshape(len(x) // parts, parts, *x.shape[1:]), 0, 1)

    return jax.tree.map(of, tree)


def _merged(tree: Any, size: int) -> Any:
    """The inverse of `_split`, without what filled up."""
    return jax.tree.map(
        lambda x: jnp.swapaxes(x, 0, 1).reshape(x.shape[0] * x.shape[1], *x.shape[2:])[:size], tree
    )
