"""Frames with truth to evaluate on: a prepared data set's test split, or a labelled folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from endoclip_jax.data.labelled import LabelledFrames, labelled_batches, read_labelled
from endoclip_jax.data.loaders import scoring_batches
from endoclip_jax.records.attributes import SIZE_CLASSES, aspect_slice
from endoclip_jax.records.manifest import UNKNOWN_POLYP
from endoclip_jax.shards.index import Index

_BATCH = 256


@dataclass(frozen=True)
class Truth:
    """What is known of each frame, aligned with the features it came with.

    Attributes:
      frames: the frames' ids, as the set's loader counts them.
      polyp: 1 where the frame shows a polyp, 0 where it does not.
      vienna: the polyp's Vienna class, 0 where it is not known or there is none.
      patients: whose frame it is.
      strata: values of the optional columns (segment, size_class, imaging) that the set has, ""
        where there is none.
    """

    frames: np.ndarray
    polyp: np.ndarray
    vienna: np.ndarray
    patients: np.ndarray
    strata: Mapping[str, np.ndarray] = field(default_factory=dict)

    def where(self, mask: np.ndarray) -> Truth:
        """The same of some frames."""
        strata = {name: values[mask] for name, values in self.strata.items()}
        return Truth(
            self.frames[mask],
            self.polyp[mask],
            self.vienna[mask],
            self.patients[mask],
            strata,
        )


@runtime_checkable
class FrameSet(Protocol):
    """Frames that can be read in batches, with their truth."""

    def labelled_frames(self) -> np.ndarray:
        """Ids of all its frames, readable or not."""
        ...

    def batches(self, image_size: int) -> Iterable[Mapping[str, np.ndarray]]: ...

    def truth(self, frames: np.ndarray) -> Truth: ...


@dataclass(frozen=True)
class SplitFrames:
    """The frames of some records whose truth the shards know."""

    index: Index
    rows: np.ndarray

    def labelled_frames(self) -> np.ndarray:
        """Frame rows of known truth."""
        frames = [self.index.frame_rows(int(row)) for row in self.rows]
        known = np.concatenate([*frames, np.zeros((0,), np.int64)])
        return known[self.index.frames["polyp"][known] != UNKNOWN_POLYP]

    def batches(self, image_size: int) -> Iterable[Mapping[str, np.ndarray]]:
        frames = self.labelled_frames()
        return scoring_batches(self.index, frames, batch=_BATCH, image_size=image_size)

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
            {"size_class": _size_classes(self.index, np.where(polyp, first + shown, -1))},
        )


@dataclass(frozen=True)
class SplitPolyps:
    """The most indicative frame of each polyp whose Vienna class the shards know.

    A frame that stands for two polyps counts once, as the first of them.
    """

    index: Index
    rows: np.ndarray

    def batches(self, image_size: int) -> Iterable[Mapping[str, np.ndarray]]:
        frames = self.labelled_frames()
        return scoring_batches(self.index, frames, batch=_BATCH, image_size=image_size)

    def labelled_frames(self) -> np.ndarray:
        """Rows of these frames in the index, ascending."""
        return np.unique(self.index.polyps["frame"][self._polyps()]).astype(np.int64)

    def truth(self, frames: np.ndarray) -> Truth:
        known = self._polyps()
        shown, first = np.unique(self.index.polyps["frame"][known], return_index=True)
        polyps = known[first[np.searchsorted(shown, frames)]]
        records = np.asarray(self.index.polyps["record"][polyps], np.int64)
        return Truth(
            frames,
            np.ones(len(frames), np.int64),
            np.asarray(self.index.polyps["vienna"][polyps], np.int64),
            np.asarray(self.index.records["patient"][records]),
            {"size_class": _size_classes(self.index, polyps)},
        )

    def _polyps(self) -> np.ndarray:
        polyps = self.index.polyps
        mine = np.isin(polyps["record"], self.rows)
        return np.flatnonzero(mine & (polyps["vienna"] > 0) & (polyps["frame"] >= 0))


def _size_classes(index: Index, polyps: np.ndarray) -> np.ndarray:
    """The size class of each polyp by its report; "" for −1, for none and for several."""
    classes = np.full(len(polyps), "", dtype="<U32")
    real = np.flatnonzero(polyps >= 0)
    chosen = index.polyps[polyps[real]]
    described = chosen["item"] >= 0
    real, chosen = real[described], chosen[described]
    items = index.records["first_item"][chosen["record"]] + chosen["item"]
    bits = np.asarray(index.items["bits_text"][items])[:, aspect_slice("size_class")]
    one = bits.sum(axis=1) == 1
    classes[real[one]] = np.asarray(SIZE_CLASSES)[bits[one].argmax(axis=1)]
    return classes


@dataclass(frozen=True)
class FolderFrames:
    """A folder with `labels.csv`: file, polyp, and where known vienna and patient."""

    labelled: LabelledFrames

    @classmethod
    def open(cls, folder: Path) -> FolderFrames:
        return cls(read_labelled(folder))

    def labelled_frames(self) -> np.ndarray:
        """Positions of the frames in `labels.csv`."""
        return np.arange(len(self.labelled))

    def batches(self, image_size: int) -> Iterable[Mapping[str, np.ndarray]]:
        return labelled_batches(self.labelled, batch=_BATCH, image_size=image_size)

    def truth(self, frames: np.ndarray) -> Truth:
        return Truth(
            frames,
            np.asarray(self.labelled.polyp)[frames],
            np.asarray(self.labelled.vienna)[frames],
            np.asarray(self.labelled.patient)[frames],
            {name: values[frames] for name, values in self.labelled.strata.items()},
        )
