"""Sums over the rows and columns of the whole ``B x B`` matrix that never exists as one.

Every device keeps its share of the images (rows). The texts (columns) go round the ring of
devices, and with them what has been summed over them so far, until they are home again:

    step 0                 step 1                 step 2
    device 0  rows 0 x columns 0    rows 0 x columns 2    rows 0 x columns 1
    device 1  rows 1 x columns 1    rows 1 x columns 0    rows 1 x columns 2
    device 2  rows 2 x columns 2    rows 2 x columns 1    rows 2 x columns 0

A block, one device's rows by another's columns, is worked off in tiles of at most ``tile`` rows
and columns: a tile is formed, folded into the sums of its rows and of its columns, and dropped.
So both directions of the loss come from one pass, and memory is linear in ``B``. The backward
pass forms the tiles again. The next columns do not depend on the work on the present ones, so a
scheduler can send them meanwhile.

Where the weights are the similarity itself, their products with the logits need no tile:
``sum_j M_ij S_ij = e^scale v_i . (C^T a_i)`` with ``C = sum_j a_j t_j^T``, ``[a, d]``, and another
``C`` for the columns.

All that needs no tile, these products and the diagonal, is summed in here too, so that the
backward pass can start the gradients from it and let the ring add to them where they are. What is
added to the ring's gradients afterwards would take as much memory as they do once more.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool, Float

from endoclip_jax.models.layers import MASKED

MAX_TILE = 1024
_HIGHEST = jax.lax.Precision.HIGHEST
_T = TypeVar("_T")


@dataclass(frozen=True)
class Ring:
    """Over which devices, in which tiles, and what is summed beside the logsumexps.

    Attributes:
      axes: mesh axes over which the batch is split; together they are the ring.
      weights: target weights from morphological similarity, elementwise, or None: no targets.
        They, their entropy and their products with the logits are summed; the products have
        gradients, the others none.
      linear: whether the weights are the similarity itself, so that the products need no tile.
    """

    mesh: Mesh
    axes: tuple[str, ...] = ("data",)
    tile: int = MAX_TILE
    weights: Callable[[Array], Array] | None = None
    linear: bool = False

    @property
    def size(self) -> int:
        return math.prod(self.mesh.shape[axis] for axis in self.axes)

    @property
    def products_by_tile(self) -> bool:
        """Whether tiles are asked for the products of weights and logits."""
        return self.weights is not None and not self.linear


class Sums(NamedTuple):
    """Of each row (or column); zeros where the ring was not asked for them."""

    log_partition: Array  # log sum_j exp(S_ij)
    weight: Array  # sum_j w_ij
    weight_log: Array  # sum_j w_ij log w_ij
    product: Array  # sum_j w_ij S_ij


class _Side(NamedTuple):
    """A device's rows, or the columns it holds at the moment: tiles first, then their members."""

    x: Array
    valid: Array
    attributes: Any  # an array, or None where no weights are asked for


class _Running(NamedTuple):
    """Sums over the tiles met so far; the logsumexp as its largest member and the rest."""

    peak: Array
    total: Array
    weight: Any  # an array, or None where it is not asked for; so are the following
    weight_log: Any
    product: Any


class _Pull(NamedTuple):
    """What the backward pass needs of each row or column beside its vector."""

    log_partition: Array
    by_partition: Array
    by_product: Array


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def tiled_sums(
    ring: Ring,
    v: Float[Array, "b d"],
    t: Float[Array, "b d"],
    logit_scale: Float[Array, ""],
    valid: Bool[Array, " b"],
    a_v: Float[Array, "b a"] | None,
    a_t: Float[Array, "b a"] | None,
) -> tuple[Sums, Sums, Array]:
    """Sums of the rows and of the columns of ``S = exp(logit_scale) v t^T``; its diagonal, ``[b]``.

    ``b`` must be a multiple of the ring's size. Rows and columns that are not ``valid`` stand in
    no sum, whatever they hold, and get zero gradients; sums *of* them are finite and without
    meaning. ``a_v, a_t``: constants for ``ring.weights``, attribute rows of unit length, zero
    where not ``valid``.
    """

    def local(scale: Array, sides: tuple[_Side, _Side]) -> tuple[Sums, ...]:
        rows, columns = _tiled(ring, sides)

        def visit(_: Array, state: Any) -> Any:
            columns, row_sums, column_sums = state
            following = _to_next(ring, columns)
            row_sums, column_sums = _fold_block(ring, scale, rows, columns, row_sums, column_sums)
            return following, row_sums, _to_next(ring, column_sums)

        nothing = _nothing(ring, rows.valid.shape, v.dtype)
        _, *sums = jax.lax.fori_loop(0, ring.size, visit, (columns, nothing, nothing))
        return tuple(_finished(own, len(sides[0].x)) for own in sums)

    scale, sides = jnp.exp(logit_scale), (_Side(v, valid, a_v), _Side(t, valid, a_t))
    rows, columns = _on_every_device(ring, local)(scale, sides)
    if ring.linear:
        of_rows, of_columns = _linear_products(scale, *sides)
        rows, columns = rows._replace(product=of_rows), columns._replace(product=of_columns)
    return rows, columns, _own_logits(scale, *sides)


def _forward(ring: Ring, *arguments: Any) -> tuple[tuple[Sums, Sums, Array], Any]:
    rows, columns, own = tiled_sums(ring, *arguments)
    return (rows, columns, own), (arguments, (rows.log_partition, columns.log_partition))


def _backward(ring: Ring, residuals: Any, cotangents: tuple[Sums, Sums, Array]) -> tuple[Any, ...]:
    """``dS_ij = g_i e^{S_ij - L_i} + g_j e^{S_ij - L_j} + w_ij (h_i + h_j)``, tile by tile."""
    (v, t, logit_scale, valid, a_v, a_t), log_partitions = residuals
    *by_sums, by_own = cotangents

    def local(scale: Array, sides: Any, pulls: Any, starts: Any) -> tuple[Array, Array]:
        size = len(sides[0].x)
        (rows, columns), (row_pull, column_pull) = _tiled(ring, sides), _tiled(ring, pulls)

        def visit(_: Array, state: Any) -> Any:
            columns, column_pull, by_rows, by_columns = state
            following = _to_next(ring, (columns, column_pull))
            by_rows, by_columns = _pull_block(
                ring, scale, (rows, row_pull), (columns, column_pull), by_rows, by_columns
            )
            return *following, by_rows, _to_next(ring, by_columns)

        *_, by_rows, by_columns = jax.lax.fori_loop(
            0, ring.size, visit, (columns, column_pull, *_tiled(ring, starts))
        )
        return _untiled(by_rows, size), _untiled(by_columns, size)

    scale, sides = jnp.exp(logit_scale), (_Side(v, valid, a_v), _Side(t, valid, a_t))
    pulls = [
        _Pull(log_partition, by.log_partition, by.product)
        for log_partition, by in zip(log_partitions, by_sums, strict=True)
    ]
    starts = _own_pulls(scale * by_own, *sides)
    if ring.linear:
        starts = jax.tree.map(jnp.add, starts, _linear_pulls(scale, *sides, *pulls))
    if not ring.products_by_tile:  # then no tile's gradient depends on the weights
        ring = replace(ring, weights=None)
        sides = sides[0]._replace(attributes=None), sides[1]._replace(attributes=None)
    by_v, by_t = _on_every_device(ring, local)(scale, sides, pulls, starts)
    by_logit_scale = jnp.sum(jnp.where(valid[:, None], v, 0) * by_v)  # sum_ij dS_ij S_ij
    return by_v, by_t, by_logit_scale, None, None, None


tiled_sums.defvjp(_forward, _backward)


def _own_logits(scale: Array, rows: _Side, columns: _Side) -> Array:
    """``S_ii``, ``[b]``; 0 where not valid."""
    return scale * jnp.sum(_masked(rows).x * _masked(columns).x, axis=1)


def _own_pulls(by_cosine: Array, rows: _Side, columns: _Side) -> tuple[Array, Array]:
    """Gradients ``[b, d]`` of the diagonal by rows, and by columns."""
    by_rows, by_columns = (by_cosine[:, None] * _masked(other).x for other in (columns, rows))
    return by_rows, by_columns


def _linear_products(scale: Array, rows: _Side, columns: _Side) -> tuple[Array, Array]:
    """``sum_j M_ij S_ij`` of rows, and of columns, ``[b]``; plain code over the split batch."""

    def products(own: _Side, other: _Side) -> Array:
        by_attribute = jnp.einsum("ja,jd->ad", other.attributes, other.x, precision=_HIGHEST)
        projected = jnp.einsum("id,ad->ia", own.x, by_attribute, precision=_HIGHEST)
        return scale * jnp.sum(own.attributes * projected, axis=1)

    rows, columns = _masked(rows), _masked(columns)
    return products(rows, columns), products(columns, rows)


def _linear_pulls(
    scale: Array, rows: _Side, columns: _Side, row_pull: _Pull, column_pull: _Pull
) -> tuple[Array, Array]:
    """Gradients ``[b, d]`` of the linear products by rows, and by columns.

    ``e^scale sum_j M_ij (h_i + h_j) y_j = e^scale (h_i a_i . C + a_i . H)``, with ``C`` and
    ``H = sum_j h_j a_j y_j^T`` formed, and pulled back, as one matrix ``[2 a, d]``.
    """

    def pulls(own: _Side, own_pull: _Pull, other: _Side, other_pull: _Pull) -> Array:
        a, b = own.attributes, other.attributes
        once_and_weighted = jnp.concatenate([b, other_pull.by_product[:, None] * b], axis=1)
        weighted_and_once = jnp.concatenate([own_pull.by_product[:, None] * a, a], axis=1)
        sums = scale * jnp.einsum("jk,jd->kd", once_and_weighted, other.x, precision=_HIGHEST)
        return jnp.einsum("ik,kd->id", weighted_and_once, sums, precision=_HIGHEST)

    rows, columns = _masked(rows), _masked(columns)
    by_rows = pulls(rows, row_pull, columns, column_pull)
    return by_rows, pulls(columns, column_pull, rows, row_pull)


def _fold_block(
    ring: Ring, scale: Array, rows: _Side, columns: _Side, row_sums: _Running, column_sums: _Running
) -> tuple[_Running, _Running]:
    """Adds one block, tile by tile, to the sums of its rows and of its columns."""

    def along_row(i: Array, state: tuple[_Running, _Running]) -> tuple[_Running, _Running]:
        row_sums, column_sums = state
        row = _tile_of(rows, i)

        def one_tile(j: Array, state: tuple[_Running, _Running]) -> tuple[_Running, _Running]:
            own, column_sums = state
            logits, weights = _tile(ring, scale, row, _tile_of(columns, j))
            theirs = _folded(ring, _take(column_sums, j), logits, weights, axis=0)
            own = _folded(ring, own, logits, weights, axis=1)
            return own, _put(column_sums, j, theirs)

        own, column_sums = jax.lax.fori_loop(
            0, len(columns.x), one_tile, (_take(row_sums, i), column_sums)
        )
        return _put(row_sums, i, own), column_sums

    return jax.lax.fori_loop(0, len(rows.x), along_row, (row_sums, column_sums))


def _pull_block(
    ring: Ring,
    scale: Array,
    rows: tuple[_Side, _Pull],
    columns: tuple[_Side, _Pull],
    by_rows: Array,
    by_columns: Array,
) -> tuple[Array, Array]:
    """Adds one block's gradient, tile by tile, to those of its rows and of its columns."""

    def along_row(i: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        by_rows, by_columns = state
        row, row_pull = _tile_of(rows[0], i), _take(rows[1], i)

        def one_tile(j: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
            by_row, by_columns = state
            column, column_pull = _tile_of(columns[0], j), _take(columns[1], j)
            logits, weights = _tile(ring, scale, row, column)
            by_logits = row_pull.by_partition[:, None] * jnp.exp(
                logits - row_pull.log_partition[:, None]
            ) + column_pull.by_partition * jnp.exp(logits - column_pull.log_partition)
            if ring.products_by_tile:
                by_logits += weights * (row_pull.by_product[:, None] + column_pull.by_product)
            by_cosines = scale * by_logits
            by_row += jnp.einsum("ij,jd->id", by_cosines, column.x, precision=_HIGHEST)
            by_column = jnp.einsum("ij,id->jd", by_cosines, row.x, precision=_HIGHEST)
            return by_row, by_columns.at[j].add(by_column)

        by_row, by_columns = jax.lax.fori_loop(
            0, len(columns[0].x), one_tile, (by_rows[i], by_columns)
        )
        return by_rows.at[i].set(by_row), by_columns

    return jax.lax.fori_loop(0, len(rows[0].x), along_row, (by_rows, by_columns))


def _tile(ring: Ring, scale: Array, row: _Side, column: _Side) -> tuple[Array, Any]:
    """Logits ``[r, c]`` of one tile, masked, and its target weights if these are wanted."""
    pairs = row.valid[:, None] & column.valid
    cosines = jnp.einsum("id,jd->ij", row.x, column.x, precision=_HIGHEST)
    logits = jnp.where(pairs, scale * cosines, MASKED)
    if ring.weights is None:
        return logits, None
    similarity = jnp.einsum("ia,ja->ij", row.attributes, column.attributes, precision=_HIGHEST)
    return logits, jnp.where(pairs, ring.weights(similarity), 0)


def _folded(ring: Ring, sums: _Running, logits: Array, weights: Any, axis: int) -> _Running:
    """The running sums of the rows (axis 1) or columns (axis 0) of a tile with the tile in."""
    peak = jnp.maximum(sums.peak, jnp.max(logits, axis))
    total = sums.total * jnp.exp(sums.peak - peak)
    total += jnp.sum(jnp.exp(logits - jnp.expand_dims(peak, axis)), axis)
    if weights is None:
        return sums._replace(peak=peak, total=total)
    return _Running(
        peak,
        total,
        sums.weight + jnp.sum(weights, axis),
        sums.weight_log + jnp.sum(jax.scipy.special.xlogy(weights, weights), axis),
        # A masked weight is 0 and a masked logit finite, so that their product is 0.
        sums.product + jnp.sum(weights * logits, axis) if ring.products_by_tile else None,
    )


def _nothing(ring: Ring, shape: tuple[int, ...], dtype: Any) -> _Running:
    zeros = jnp.zeros(shape, dtype)
    weighted = zeros if ring.weights else None
    product = zeros if ring.products_by_tile else None
    return _Running(jnp.full(shape, MASKED, dtype), zeros, weighted, weighted, product)


def _finished(sums: _Running, size: int) -> Sums:
    log_partition = sums.peak + jnp.log(sums.total)
    asked = (log_partition, sums.weight, sums.weight_log, sums.product)
    zeros = jnp.zeros(size, log_partition.dtype)
    return Sums(*(zeros if own is None else _untiled(own, size) for own in asked))


def _on_every_device(ring: Ring, local: Callable[..., Any]) -> Callable[..., Any]:
    """`local` of a scalar that is everywhere and of arrays that are split over the ring."""
    split = PartitionSpec(ring.axes)

    def run(scale: Array, *arrays: Any) -> Any:
        return jax.shard_map(
            local,
            mesh=ring.mesh,
            in_specs=(PartitionSpec(), *[split] * len(arrays)),
            out_specs=split,
            check_vma=False,  # zeros to start from would have to be marked as differing
        )(scale, *arrays)

    return run


def _tiled(ring: Ring, tree: _T) -> _T:
    """``[b, ...]`` as tiles of equal size, the fewest not above ``ring.tile``; filled with zeros.

    Zeros of `valid` are False: what is filled in takes no part.
    """

    def tiles_of(x: Array) -> Array:
        tiles = -(-len(x) // ring.tile)
        size = -(-len(x) // tiles)
        missing = tiles * size - len(x)
        filled = jnp.pad(x, [(0, missing)] + [(0, 0)] * (x.ndim - 1)) if missing else x
        return filled.reshape(tiles, size, *x.shape[1:])

    return jax.tree.map(tiles_of, tree)


def _untiled(x: Array, size: int) -> Array:
    return x.reshape(-1, *x.shape[2:])[:size]


def _tile_of(side: _Side, i: Array) -> _Side:
    return _masked(_take(side, i))


def _masked(side: _Side) -> _Side:
    """With zeros for the vectors that are not valid."""
    return side._replace(x=jnp.where(side.valid[:, None], side.x, 0))


def _take(tree: _T, i: Array) -> _T:
    return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, i, keepdims=False), tree)


def _put(tree: _T, i: Array, values: _T) -> _T:
    return jax.tree.map(
        lambda x, value: jax.lax.dynamic_update_index_in_dim(x, value, i, 0), tree, values
    )


def _to_next(ring: Ring, tree: _T) -> _T:
    """Hands arrays to the next device of the ring and takes those of the one before."""
    if ring.size == 1:
        return tree
    pairs = [(i, (i + 1) % ring.size) for i in range(ring.size)]
    return jax.tree.map(lambda x: jax.lax.ppermute(x, ring.axes, pairs), tree)
