"""How a row of a batch is filled: one frame of a patient, several of them, or a given frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np

from endoclip_jax.data.augmentation import DRAWS, draw_augmentation
from endoclip_jax.data.source import FrameReader, named_generator, named_uniforms
from endoclip_jax.data.transforms import decode_onto, eval_image

Batch = dict[str, np.ndarray]


def empty_frames(rows: int, height: int, width: int) -> Batch:
    """Padding of one frame a row: black, no frame, not valid."""
    return {
        "image": np.zeros((rows, height, width, 3), np.uint8),
        "frame": np.full(rows, -1, np.int64),
        "valid": np.zeros(rows, bool),
    }


@runtime_checkable
class View(Protocol):
    """How rows are filled: an all-padding batch, and one row of it from one unit of the order."""

    def empty(self, rows: int) -> Batch: ...

    def fill(self, batch: Batch, row: int, epoch: int, unit: int) -> None: ...


@dataclass(frozen=True)
class FrameView:
    """One frame of one record of a patient; `groups` are positions in `records` by patient.

    In training `image` is the frame on a canvas, to be seen through its `augmentation` on the
    device; in evaluation it is what the model sees.
    """

    reader: FrameReader
    groups: Sequence[Sequence[int]]
    records: Sequence[int]
    candidates: Sequence[np.ndarray]
    seed: int
    stream: str
    image_size: int
    train: bool

    @cached_property
    def canvas(self) -> tuple[int, int]:
        """Height and width of `image`; the same for every process of a job."""
        if not self.train:
            return self.image_size, self.image_size
        return self.reader.canvas(np.unique(np.concatenate(self.candidates)), self.image_size)

    def empty(self, rows: int) -> Batch:
        batch = empty_frames(rows, *self.canvas) | {"record": np.full(rows, -1, np.int64)}
        return batch | self.no_augmentations((rows,))

    def no_augmentations(self, shape: tuple[int, ...]) -> Batch:
        """Room for what training draws for `shape` frames; nothing in evaluation."""
        return {"augmentation": np.zeros((*shape, DRAWS), np.float32)} if self.train else {}

    def fill(self, batch: Batch, row: int, epoch: int, unit: int) -> None:
        patient, position, rng = self.draw_record(epoch, unit)
        batch["record"][row] = self.records[position]
        for frame in self.in_turn(position, rng):
            if self.placed(batch, (row,), epoch, patient, frame):
                batch["frame"][row], batch["valid"][row] = frame, True
                return

    def draw_record(self, epoch: int, unit: int) -> tuple[str, int, np.random.Generator]:
        """The patient's hash, the position of this epoch's record, and what draws its frames."""
        group = self.groups[unit]
        patient = self.reader.patient(self.records[group[0]])
        rng = named_generator(self.seed, self.stream, epoch, patient, "draw")
        return patient, group[int(rng.integers(len(group)))], rng

    def in_turn(self, position: int, rng: np.random.Generator) -> list[int]:
        """The record's candidates as they are tried: cyclically, from a drawn one on."""
        own = self.candidates[position]
        start = int(rng.integers(len(own)))
        return [*own[start:].tolist(), *own[:start].tolist()]

    def placed(
        self, batch: Batch, where: tuple[int, ...], epoch: int, patient: str, frame: int
    ) -> bool:
        """Puts the frame, in training with its augmentation, into the batch; False if damaged."""
        image = batch["image"][where]
        if not self.train:
            pixels = self.reader.decoded(frame, lambda jpeg: eval_image(jpeg, self.image_size))
            if pixels is not None:
                image[:] = pixels
            return pixels is not None
        sides = self.reader.decoded(frame, lambda jpeg: decode_onto(image, jpeg, self.image_size))
        if sides is None:
            return False
        draws = named_uniforms(
            DRAWS, self.seed, self.stream, epoch, patient, self.reader.ordinal(frame)
        )
        batch["augmentation"][where] = draw_augmentation(*sides, draws)
        return True


@dataclass(frozen=True)
class PatientView(FrameView):
    """Several frames of one record; `candidates` stand by falling score."""

    max_images: int

    def empty(self, rows: int) -> Batch:
        images = (rows, self.max_images)
        return {
            "image": np.zeros((*images, *self.canvas, 3), np.uint8),
            "image_mask": np.zeros(images, bool),
            "frame": np.full(images, -1, np.int64),
            "record": np.full(rows, -1, np.int64),
            "valid": np.zeros(rows, bool),
            **self.no_augmentations(images),
        }

    def fill(self, batch: Batch, row: int, epoch: int, unit: int) -> None:
        patient, position, rng = self.draw_record(epoch, unit)
        batch["record"][row] = self.records[position]
        own = self.candidates[position]
        filled = 0
        for frame in (rng.permutation(own) if self.train else own).tolist():
            if filled == self.max_images:
                break
            if self.placed(batch, (row, filled), epoch, patient, frame):
                batch["frame"][row, filled] = frame
                batch["image_mask"][row, filled] = batch["valid"][row] = True
                filled += 1


@dataclass(frozen=True)
class ScoringView:
    """One given frame a row, as evaluation sees it."""

    reader: FrameReader
    frames: np.ndarray
    image_size: int

    def empty(self, rows: int) -> Batch:
        return empty_frames(rows, self.image_size, self.image_size)

    def fill(self, batch: Batch, row: int, epoch: int, unit: int) -> None:
        frame = int(self.frames[unit])
        batch["frame"][row] = frame
        pixels = self.reader.decoded(frame, lambda jpeg: eval_image(jpeg, self.image_size))
        if pixels is not None:
            batch["image"][row], batch["valid"][row] = pixels, True
