"""Which patient stands in which row of which batch: training's shuffle, and one pass in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, runtime_checkable

from endoclip_jax.data.source import named_generator
from endoclip_jax.errors import UserError


@runtime_checkable
class Order(Protocol):
    """Which unit (and of which epoch) stands in a row of a global batch; None is padding."""

    steps_per_epoch: int
    left_out_per_epoch: int
    endless: bool

    def __call__(self, step: int, row: int) -> tuple[int, int] | None: ...

    def left_out(self, epoch: int) -> list[str]: ...


class Shuffled:
    """Endless training order: patients shuffled anew each epoch, cut to whole batches.

    An epoch's permutation is drawn whole: Grain's own shuffle, which needs no memory, walks 2^16
    places to find one of few (4 ms a patient at 45 patients, 10 µs at 13,000).
    """

    endless = True

    def __init__(self, patients: Sequence[str], global_batch: int, seed: int, stream: str):
        self.steps_per_epoch = len(patients) // global_batch
        self.left_out_per_epoch = len(patients) % global_batch
        self._patients, self._global_batch = patients, global_batch
        self._permutation = lru_cache(maxsize=4)(
            lambda epoch: named_generator(seed, stream, epoch, "order").permutation(len(patients))
        )

    def __call__(self, step: int, row: int) -> tuple[int, int]:
        epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
        return epoch, int(self._permutation(epoch)[step_in_epoch * self._global_batch + row])

    def left_out(self, epoch: int) -> list[str]:
        """Patients that stand in no batch of this epoch."""
        kept = self.steps_per_epoch * self._global_batch
        return [self._patients[unit] for unit in self._permutation(epoch)[kept:]]


class InOrder:
    """One pass over all units as they stand, padded; `balanced` evens out the batches' sizes."""

    endless = False
    left_out_per_epoch = 0

    def __init__(self, num_units: int, global_batch: int, balanced: bool):
        self.steps_per_epoch = -(-num_units // global_batch)
        self._num_units, self._global_batch, self._balanced = num_units, global_batch, balanced

    def __call__(self, step: int, row: int) -> tuple[int, int] | None:
        start, stop = self._start(step), self._start(step + 1)
        return (0, start + row) if start + row < stop else None

    def left_out(self, epoch: int) -> list[str]:
        """Nobody: every unit stands in a batch."""
        return []

    def _start(self, step: int) -> int:
        if self._balanced:
            return step * self._num_units // self.steps_per_epoch
        return min(step * self._global_batch, self._num_units)


@dataclass(frozen=True)
class Share:
    """The rows of a global batch that this process loads."""

    global_batch: int
    process_index: int
    process_count: int

    def __post_init__(self) -> None:
        if self.global_batch < 1 or self.global_batch % self.process_count:
            raise UserError(
                f"A global batch of {self.global_batch} cannot be shared out among "
                f"{self.process_count} processes: take a positive multiple of {self.process_count}."
            )

    @property
    def size(self) -> int:
        return self.global_batch // self.process_count

    @property
    def first(self) -> int:
        return self.process_index * self.size
