"""Which patients and frames a stage may use, read off the index without touching an image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from endoclip_jax.shards.index import Index


def training_rows(index: Index, split: str) -> np.ndarray:
    """Record rows to train on: one split, or `all` of them."""
    return index.rows(None if split == "all" else split)


def positives(index: Index, rows: np.ndarray) -> np.ndarray:
    """Those of `rows` whose report describes a polyp."""
    return rows[np.asarray(index.records["has_polyp"][rows], bool)]


def negatives(index: Index, rows: np.ndarray) -> np.ndarray:
    """Those of `rows` whose report describes none."""
    return rows[~np.asarray(index.records["has_polyp"][rows], bool)]


def single_polyp(index: Index, rows: np.ndarray) -> np.ndarray:
    """Those whose item counts sum to one (stage 2)."""
    return rows[index.records["item_count"][rows] == 1]


def multi_polyp(index: Index, rows: np.ndarray) -> np.ndarray:
    """Those whose item counts sum to more than one (stage 3); there may still be one sentence."""
    return rows[index.records["item_count"][rows] > 1]


def all_frames(index: Index, rows: np.ndarray) -> list[np.ndarray]:
    """All frame rows of each record."""
    return [index.frame_rows(int(row)) for row in rows]


def position_of(rows: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where each of `wanted` stands in the ascending array `rows`."""
    return np.searchsorted(rows, wanted)


def with_frames(
    rows: np.ndarray, candidates: Sequence[np.ndarray]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Records that have at least one candidate frame, with their candidates."""
    kept = [(row, frames) for row, frames in zip(rows, candidates, strict=True) if len(frames)]
    return (
        np.asarray([row for row, _ in kept], np.int64),
        [frames for _, frames in kept],
    )
