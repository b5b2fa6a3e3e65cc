"""What identifies the samples a run has seen: the same number for any number of processes."""

from __future__ import annotations

import jax
import numpy as np
from jax.experimental import multihost_utils

_HALF = np.uint64(32)


class SampleDigest:
    """A sum over all rows of all global batches so far, each row a hash of step, place and frames.

    A sum does not ask who loaded which row, so processes add up their own parts; only `value` has
    them talk to each other. The order of samples counts, since each row's place is hashed with it.
    """

    def __init__(self, value: int = 0) -> None:
        """
        Args:
          value: of the steps before, as `value` gave it.
        """
        self._before, self._own = value, np.uint64(0)

    def add(self, step: int, frames: np.ndarray) -> None:
        """This process's rows of a global batch: frame ids `[b]`, or `[b, k]` of patients."""
        rows = len(frames)
        place = jax.process_index() * rows + np.arange(rows, dtype=np.uint64)
        hashed = _mixed(_mixed(np.full(rows, step, np.uint64)) + place)
        for column in np.reshape(frames, (rows, -1)).astype(np.int64).view(np.uint64).T:
            hashed = _mixed(hashed + column)
        self._own = np.add.reduce(np.append(hashed, self._own))

    def value(self) -> int:
        """The digest of the whole job; all processes ask alike."""
        halves = np.asarray([self._own >> _HALF, self._own & np.uint64(0xFFFFFFFF)], np.uint32)
        if jax.process_count() > 1:
            halves = multihost_utils.process_allgather(halves)
        own = sum((int(high) << 32) + int(low) for high, low in np.reshape(halves, (-1, 2)))
        return (self._before + own) % 2**64


def _mixed(x: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser: neighbouring numbers become unrelated ones."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
