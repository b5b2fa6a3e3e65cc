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

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import grain
import numpy as np
from jaxtyping import Float, Int64

from endoclip_jax.data.order import InOrder, Order, Share, Shuffled
from endoclip_jax.data.source import Faults, FrameReader
from endoclip_jax.data.views import Batch, FrameView, PatientView, ScoringView, View
from endoclip_jax.errors import UserError
from endoclip_jax.shards.cores import cores
from endoclip_jax.shards.index import Index

_PIECE_IMAGES = 32
"""Images a thread loads at a time: enough to hide Grain's cost, few enough to share a batch out."""
_MAX_THREADS = 16


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
        threads = threads or min(_MAX_THREADS, cores())
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

    Training draws one of the record's candidates each epoch and an `augmentation` f32[b,10] of it;
    its `image` is u8[b,H,W,3], for `data.augmentation.augmented`. Evaluation goes once
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
    `frame` i64[b,K], `record` i64[b], `valid` bool[b]; in training `image` u8[b,K,H,W,3] and
    `augmentation` f32[b,K,10].

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


def _join(pieces: Sequence[Batch]) -> Batch:
    if len(pieces) == 1:
        return pieces[0]
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
