"""Batches by step number: which rows a global batch holds, and how each of them is filled.

Each step is an element of a Grain `MapDataset`, which repeats and prefetches. The order is a global
shuffle of *patients*, redrawn every epoch and cut to whole global batches before it repeats, so
that no patient stands twice in a batch or in an epoch; who is left out changes with the epoch. Of a
patient with several examinations each epoch draws one. Process p of P loads rows [p·B/P, (p+1)·B/P)
of the global batch of B, as `jax.make_array_from_process_local_data` expects them, so the assembled
batch has the same rows in the same order for every P. What is drawn for a row, and its pixels,
depend on (seed, stream, epoch, patient, frame ordinal) alone; a step number is therefore a complete
cursor.

A damaged frame (checksum or JPEG) never stops a run: the next candidate of the same record takes
its place, cyclically in the frame view, in the order drawn in the patient view. A record with no
readable candidate is a black image with `valid` False. Damaged frames are counted in
`Batches.corrupt` and logged by name, each once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Protocol, runtime_checkable

import grain
import numpy as np
from jaxtyping import Float, Int64

from endoclip_jax.data.source import Faults, FrameReader, named_generator
from endoclip_jax.data.transforms import eval_image, train_image
from endoclip_jax.errors import UserError
from endoclip_jax.shards.index import Index

Batch = dict[str, np.ndarray]

_PIECE_IMAGES = 32
"""Images a thread loads at a time: enough to hide Grain's cost, few enough to share a batch out."""
_MAX_THREADS = 16


@runtime_checkable
class View(Protocol):
    """How rows are filled: an all-padding batch, and one row of it from one unit of the order."""

    def empty(self, rows: int) -> Batch: ...

    def fill(self, batch: Batch, row: int, epoch: int, unit: int) -> None: ...


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


class Batches:
    """Batches of this process, addressed by step; iterating prefetches with threads.

    Attributes:
      steps_per_epoch: global batches in an epoch. Training goes on for ever, evaluation and
        scoring end after one.
      left_out_per_epoch: patients that stand in no batch of an epoch.
    """

    def __init__(
        self, view: View, order: Order, share: Share, faults: Faults, images_per_row: int = 1
    ):
        self.steps_per_epoch = order.steps_per_epoch
        self.left_out_per_epoch = order.left_out_per_epoch
        self._view, self._order, self._share, self._faults = view, order, share, faults
        rows_per_piece = max(1, _PIECE_IMAGES // images_per_row)
        self._pieces_per_step = -(-share.size // rows_per_piece)
        num_pieces = self.steps_per_epoch * self._pieces_per_step
        pieces = grain.MapDataset.range(num_pieces)
        if order.endless:
            pieces = pieces.repeat()
        self._pieces = pieces.map_with_index(partial(self._piece, rows_per_piece))

    def __iter__(self) -> Iterator[Batch]:
        return self.iterate()

    def __len__(self) -> int:
        """Steps in an epoch."""
        return self.steps_per_epoch

    def at(self, step: int) -> Batch:
        """The batch of one step, the same as iterating gives."""
        first = step * self._pieces_per_step
        return _join([self._pieces[first + i] for i in range(self._pieces_per_step)])

    def iterate(self, start_step: int = 0, threads: int | None = None) -> Iterator[Batch]:
        """Batches from `start_step` on, two ahead; `close()` ends the threads.

        Args:
          threads: decoding threads; by default the cores this process may use, at most 16.
        """
        threads = threads or min(_MAX_THREADS, _usable_cores())
        ahead = max(threads, 2 * self._pieces_per_step)
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
        pieces = self._pieces[start_step * self._pieces_per_step :].to_iter_dataset(options)
        return iter(pieces.batch(self._pieces_per_step, batch_fn=_join))

    @property
    def corrupt(self) -> int:
        """Damaged frames met so far by this process."""
        return len(self._faults.messages())

    def corrupt_names(self) -> list[str]:
        """One line for each damaged frame met so far: shard, examination and frame."""
        return self._faults.messages()

    def left_out(self, epoch: int) -> list[str]:
        """Hashes of the patients that stand in no batch of an epoch."""
        return self._order.left_out(epoch)

    def _piece(self, rows_per_piece: int, position: int, _: int) -> Batch:
        step, piece = divmod(position, self._pieces_per_step)
        first = piece * rows_per_piece
        count = min(rows_per_piece, self._share.size - first)
        batch = self._view.empty(count)
        for row in range(count):
            drawn = self._order(step, self._share.first + first + row)
            if drawn is not None:
                self._view.fill(batch, row, *drawn)
        return batch


def frame_batches(
    index: Index,
    *,
    records: Int64[np.ndarray, " n"],
    candidates: Sequence[Int64[np.ndarray, " _"]],
    global_batch: int,
    seed: int,
    stream: str,
    image_size: int,
    train: bool,
    process_index: int = 0,
    process_count: int = 1,
    make_view: Callable[..., FrameView] | None = None,
) -> Batches:
    """One frame a patient: `image` u8[b,S,S,3], `record` i64[b], `frame` i64[b], `valid` bool[b].

    Training draws one of the record's candidates each epoch and augments it. Evaluation goes once
    through the records in order, with one frame drawn for good and nothing augmented, in batches
    of even size, padded with `record` and `frame` -1 and `valid` False. UserError for a batch
    larger than the number of patients, or that the processes cannot share.

    Args:
      candidates: frame rows to draw from, for each of `records`; none may be empty.
      stream: names the random stream, e.g. `stage1/round2`.
      make_view: fills rows otherwise than `FrameView`, of whose arguments it is called.
    """
    faults = Faults()
    groups = _units(index, records, candidates, train)
    view = (make_view or FrameView)(
        FrameReader(index, faults), groups, records.tolist(), candidates, seed, stream, image_size,
        train,
    )  # fmt: skip
    order = _order(view, global_batch)
    share = _share(global_batch, process_index, process_count, train)
    return Batches(view, order, share, faults)


def patient_batches(
    index: Index,
    *,
    records: Int64[np.ndarray, " n"],
    candidates: Sequence[Int64[np.ndarray, " _"]],
    scores: Sequence[Float[np.ndarray, " _"]],
    global_batch: int,
    seed: int,
    stream: str,
    image_size: int,
    max_images: int,
    train: bool,
    process_index: int = 0,
    process_count: int = 1,
) -> Batches:
    """Up to `max_images` (K) frames a patient: `image` u8[b,K,S,S,3], `image_mask` bool[b,K],
    `frame` i64[b,K], `record` i64[b], `valid` bool[b].

    Training samples candidates without replacement each epoch; evaluation takes those of highest
    score, ties by frame order. Padding is black, mask False, frame -1. Otherwise like
    `frame_batches`.
    """
    faults = Faults()
    groups = _units(index, records, candidates, train)
    ranked = [
        own[np.lexsort((own, -np.asarray(score)))]
        for own, score in zip(candidates, scores, strict=True)
    ]
    view = PatientView(
        FrameReader(index, faults), groups, records.tolist(), ranked, seed, stream, image_size,
        train, max_images,
    )  # fmt: skip
    order = _order(view, global_batch)
    share = _share(global_batch, process_index, process_count, train)
    return Batches(view, order, share, faults, images_per_row=max_images)


def scoring_batches(
    index: Index,
    frames: Int64[np.ndarray, " n"],
    *,
    batch: int,
    image_size: int,
    process_index: int = 0,
    process_count: int = 1,
) -> Batches:
    """Every frame once, in order: `image` u8[b,S,S,3], `frame` i64[b], `valid` bool[b].

    `batch` is the global one. Only the last batch is padded (`frame` -1); a damaged frame keeps
    its row and its `frame`, black and with `valid` False.
    """
    faults = Faults()
    view = ScoringView(FrameReader(index, faults), np.asarray(frames, np.int64), image_size)
    order = InOrder(len(frames), batch, balanced=False)
    return Batches(view, order, Share(batch, process_index, process_count), faults)


@dataclass(frozen=True)
class FrameView:
    """One frame of one record of a patient; `groups` are positions in `records` by patient."""

    reader: FrameReader
    groups: Sequence[Sequence[int]]
    records: Sequence[int]
    candidates: Sequence[np.ndarray]
    seed: int
    stream: str
    image_size: int
    train: bool

    def empty(self, rows: int) -> Batch:
        return {
            "image": np.zeros((rows, self.image_size, self.image_size, 3), np.uint8),
            "record": np.full(rows, -1, np.int64),
            "frame": np.full(rows, -1, np.int64),
            "valid": np.zeros(rows, bool),
        }

    def fill(self, batch: Batch, row: int, epoch: int, unit: int) -> None:
        patient, position, rng = self.draw_record(epoch, unit)
        batch["record"][row] = self.records[position]
        own = self.candidates[position]
        start = int(rng.integers(len(own)))
        for frame in (*own[start:].tolist(), *own[:start].tolist()):
            pixels = self.pixels(epoch, patient, frame)
            if pixels is not None:
                batch["image"][row], batch["frame"][row] = pixels, frame
                batch["valid"][row] = True
                return

    def draw_record(self, epoch: int, unit: int) -> tuple[str, int, np.random.Generator]:
        """The patient's hash, the position of this epoch's record, and what draws its frames."""
        group = self.groups[unit]
        patient = self.reader.patient(self.records[group[0]])
        rng = named_generator(self.seed, self.stream, epoch, patient, "draw")
        return patient, group[int(rng.integers(len(group)))], rng

    def pixels(self, epoch: int, patient: str, frame: int) -> np.ndarray | None:
        """The frame augmented (training) or as it is, or None if it is damaged."""
        if not self.train:
            return self.reader.pixels(frame, lambda jpeg: eval_image(jpeg, self.image_size))
        rng = named_generator(self.seed, self.stream, epoch, patient, self.reader.ordinal(frame))
        return self.reader.pixels(frame, lambda jpeg: train_image(jpeg, self.image_size, rng))


@dataclass(frozen=True)
class PatientView(FrameView):
    """Several frames of one record; `candidates` stand by falling score."""

    max_images: int

    def empty(self, rows: int) -> Batch:
        images = (rows, self.max_images)
        return {
            "image": np.zeros((*images, self.image_size, self.image_size, 3), np.uint8),
            "image_mask": np.zeros(images, bool),
            "frame": np.full(images, -1, np.int64),
            "record": np.full(rows, -1, np.int64),
            "valid": np.zeros(rows, bool),
        }

    def fill(self, batch: Batch, row: int, epoch: int, unit: int) -> None:
        patient, position, rng = self.draw_record(epoch, unit)
        batch["record"][row] = self.records[position]
        own = self.candidates[position]
        filled = 0
        for frame in (rng.permutation(own) if self.train else own).tolist():
            if filled == self.max_images:
                break
            pixels = self.pixels(epoch, patient, frame)
            if pixels is not None:
                batch["image"][row, filled], batch["frame"][row, filled] = pixels, frame
                batch["image_mask"][row, filled] = batch["valid"][row] = True
                filled += 1


@dataclass(frozen=True)
class ScoringView:
    """One given frame a row, as evaluation sees it."""

    reader: FrameReader
    frames: np.ndarray
    image_size: int

    def empty(self, rows: int) -> Batch:
        return {
            "image": np.zeros((rows, self.image_size, self.image_size, 3), np.uint8),
            "frame": np.full(rows, -1, np.int64),
            "valid": np.zeros(rows, bool),
        }

    def fill(self, batch: Batch, row: int, epoch: int, unit: int) -> None:
        frame = int(self.frames[unit])
        batch["frame"][row] = frame
        pixels = self.reader.pixels(frame, lambda jpeg: eval_image(jpeg, self.image_size))
        if pixels is not None:
            batch["image"][row], batch["valid"][row] = pixels, True


def _units(
    index: Index, records: np.ndarray, candidates: Sequence[np.ndarray], train: bool
) -> list[list[int]]:
    """What the order arranges: training, positions in `records` by patient; else each position."""
    if len(records) != len(candidates):
        raise ValueError(f"{len(records)} records but candidates for {len(candidates)}")
    for record, own in zip(records, candidates, strict=True):
        if not len(own):
            raise UserError(
                f"Examination {index.records[record]['exam'].decode()} has no frame to draw from: "
                "leave it out, or make the selection of frames again."
            )
    if not train:
        return [[position] for position in range(len(records))]
    groups: dict[bytes, list[int]] = {}
    for position, patient in enumerate(index.records["patient"][records].tolist()):
        groups.setdefault(patient, []).append(position)
    return list(groups.values())


def _order(view: FrameView, global_batch: int) -> Order:
    num_units = len(view.groups)
    if not view.train:
        return InOrder(num_units, global_batch, balanced=True)
    if not 0 < global_batch <= num_units:
        raise UserError(
            f"{view.stream} has {num_units} patients but its global batch is {global_batch}: "
            f"the largest that fits is {num_units}."
        )
    patients = [view.reader.patient(view.records[group[0]]) for group in view.groups]
    return Shuffled(patients, global_batch, view.seed, view.stream)


def _share(global_batch: int, process_index: int, process_count: int, train: bool) -> Share:
    """A process's rows; of an evaluation, any batch is shared out, the last rows being padding."""
    if not train:
        global_batch = -(-global_batch // process_count) * process_count
    return Share(global_batch, process_index, process_count)


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _join(pieces: Sequence[Batch]) -> Batch:
    if len(pieces) == 1:
        return pieces[0]
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
