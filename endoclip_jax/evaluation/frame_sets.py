"""Frames with truth to evaluate on: a prepared data set's test split, or a labelled folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from endoclip_jax.data.labelled import LabelledFrames, labelled_batches, read_labelled
from endoclip_jax.data.loaders import scoring_batches
from endoclip_jax.models.clip import CLIP
from endoclip_jax.records.manifest import UNKNOWN_POLYP
from endoclip_jax.shards.index import Index
from endoclip_jax.training.embedding import embed_frames

_BATCH = 256


@dataclass(frozen=True)
class Truth:
    """What is known of each frame, aligned with the features it came with.

    Attributes:
      frames: the frames' ids, as the set's loader counts them.
      polyp: 1 where the frame shows a polyp, 0 where it does not.
      vienna: the polyp's Vienna class, 0 where it is not known or there is none.
      patients: whose frame it is.
    """

    frames: np.ndarray
    polyp: np.ndarray
    vienna: np.ndarray
    patients: np.ndarray


@runtime_checkable
class FrameSet(Protocol):
    """Frames that can be read in batches, with their truth."""

    def batches(self, image_size: int) -> Iterable[Mapping[str, np.ndarray]]: ...

    def truth(self, frames: np.ndarray) -> Truth: ...


@dataclass(frozen=True)
class SplitFrames:
    """The frames of some records whose truth the shards know."""

    index: Index
    rows: np.ndarray

    def batches(self, image_size: int) -> Iterable[Mapping[str, np.ndarray]]:
        frames = [self.index.frame_rows(int(row)) for row in self.rows]
        known = np.concatenate([*frames, np.zeros((0,), np.int64)])
        known = known[self.index.frames["polyp"][known] != UNKNOWN_POLYP]
        return scoring_batches(self.index, known, batch=_BATCH, image_size=image_size)

    def truth(self, frames: np.ndarray) -> Truth:
        records = np.asarray(self.index.frames["record"][frames], np.int64)
        shown = np.asarray(self.index.frames["polyp"][frames], np.int64)
        first = np.asarray(self.index.records["first_polyp"][records], np.int64)
        vienna = np.zeros(len(frames), np.int64)
        polyp = shown >= 0
        vienna[polyp] = self.index.polyps["vienna"][first[polyp] + shown[polyp]]
        return Truth(
            frames,
            polyp.astype(np.int64),
            vienna,
            np.asarray(self.index.records["patient"][records]),
        )


@dataclass(frozen=True)
class FolderFrames:
    """A folder with `labels.csv`: file, polyp, and where known vienna and patient."""

    labelled: LabelledFrames

    @classmethod
    def open(cls, folder: Path) -> FolderFrames:
        return cls(read_labelled(folder))

    def batches(self, image_size: int) -> Iterable[Mapping[str, np.ndarray]]:
        return labelled_batches(self.labelled, batch=_BATCH, image_size=image_size)

    def truth(self, frames: np.ndarray) -> Truth:
        return Truth(
            frames,
            np.asarray(self.labelled.polyp)[frames],
            np.asarray(self.labelled.vienna)[frames],
            np.asarray(self.labelled.patient)[frames],
        )


def embed_set(model: CLIP, clip_params: Any, frames: FrameSet) -> tuple[np.ndarray, Truth]:
    """Unit features `[n, d]` of the set's readable frames, with their truth."""
    features, ids = embed_frames(model, clip_params, frames.batches(model.config.vision.image_size))
    return features, frames.truth(ids)
