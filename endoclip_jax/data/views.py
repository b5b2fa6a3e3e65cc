"""How a row of a batch is filled: one frame of a patient, several of them, or a given frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from endoclip_jax.data.source import FrameReader, named_generator
from endoclip_jax.data.transforms import eval_image, train_image

Batch = dict[str, np.ndarray]


def empty_frames(rows: int, size: int) -> Batch:
    """Padding of one frame a row: black, no frame, not valid."""
    return {
        "image": np.zeros((rows, size, size, 3), np.uint8),
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
        return empty_frames(rows, self.image_size) | {"record": np.full(rows, -1, np.int64)}

    def fill(self, batch: Batch, row: int, epoch: int, unit: int) -> None:
        patient, position, rng = self.draw_record(epoch, unit)
        batch["record"][row] = self.records[position]
        for frame in self.in_turn(position, rng):
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

    def in_turn(self, position: int, rng: np.random.Generator) -> list[int]:
        """The record's candidates as they are tried: cyclically, from a drawn one on."""
        own = self.candidates[position]
        start = int(rng.integers(len(own)))
        return [*own[start:].tolist(), *own[:start].tolist()]

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
        return empty_frames(rows, self.image_size)

    def fill(self, batch: Batch, row: int, epoch: int, unit: int) -> None:
        frame = int(self.frames[unit])
        batch["frame"][row] = frame
        pixels = self.reader.pixels(frame, lambda jpeg: eval_image(jpeg, self.image_size))
        if pixels is not None:
            batch["image"][row], batch["valid"][row] = pixels, True
