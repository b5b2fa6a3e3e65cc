"""Which frames of a patient later stages may draw from: the outcome of stage 1.

A selection is a small file beside the shards, which are never rewritten; it names the data set and
the checkpoint that made it, and another data set refuses it.
"""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Bool, Float, Int

from endoclip_jax.errors import UserError
from endoclip_jax.shards.index import Index

RULES = ("per_patient", "pooled", "pooled_floor1")
_ARRAYS = {
    "patient": np.dtype("S16"),
    "record": np.dtype(np.int64),
    "frame": np.dtype(np.int64),
    "ordinal": np.dtype(np.int32),
    "score": np.dtype(np.float32),
    "kept": np.dtype(bool),
}


def keep_top(
    scores: Float[np.ndarray, " f"],
    records: Int[np.ndarray, " f"],
    rho: float,
    rule: str = "per_patient",
) -> Bool[np.ndarray, " f"]:
    """The frames of highest score: `max(1, ceil(rho·K − 1e-9))` of K, ties to the earlier frame.

    `per_patient` counts K over the frames with the same entry of `records`, `pooled` over all of
    them, and `pooled_floor1` adds to `pooled` the best frame of everyone left without. The 1e-9
    keeps `rho·K` that is whole but for rounding from asking for one frame more. UserError for a
    share outside (0, 1], an unknown rule or a score that is not a number.
    """
    scores, records = np.asarray(scores), np.asarray(records)
    if not 0 < rho <= 1:
        raise UserError(f"The share of frames to keep is {rho}: rho has to be in (0, 1].")
    if rule not in RULES:
        raise UserError(f"There is no selection rule {rule!r}: take one of {', '.join(RULES)}.")
    if np.isnan(scores).any():
        raise UserError(
            f"{int(np.isnan(scores).sum())} frame scores are not numbers: the model that scored "
            "them has diverged, so take an earlier checkpoint."
        )
    if not len(scores):
        return np.zeros(0, bool)
    if rule == "per_patient":
        _, group, sizes = np.unique(records, return_inverse=True, return_counts=True)
        allowed = np.array([_number_kept(rho, size) for size in sizes.tolist()])
        return _rank(scores, group) < allowed[group]
    kept = _rank(scores, np.zeros(len(scores), np.int64)) < _number_kept(rho, len(scores))
    if rule == "pooled_floor1":
        _, group = np.unique(records, return_inverse=True)
        kept |= _rank(scores, group) == 0
    return kept


@dataclass(frozen=True)
class Selection:
    """Scored frames, row by row, and which of them were kept.

    `meta` says what made them: `fingerprint` of the data set, `checkpoint`, its `weights`'
    checksum, `rho`, `rule`, `round`.
    """

    patient: np.ndarray
    record: Int[np.ndarray, " f"]
    frame: Int[np.ndarray, " f"]
    ordinal: Int[np.ndarray, " f"]
    score: Float[np.ndarray, " f"]
    kept: Bool[np.ndarray, " f"]
    meta: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def create(
        cls,
        index: Index,
        *,
        frames: Int[np.ndarray, " f"],
        scores: Float[np.ndarray, " f"],
        kept: Bool[np.ndarray, " f"],
        meta: Mapping[str, Any],
    ) -> Selection:
        """A selection of frames of `index`, in frame order whatever the order they come in."""
        order = np.argsort(frames, kind="stable")
        frames = np.asarray(frames, np.int64)[order]
        if len(np.unique(frames)) != len(frames):
            raise ValueError("a frame is scored twice")
        record = np.asarray(index.frames["record"][frames], np.int64)
        return cls(
            patient=np.asarray(index.records["patient"][record]),
            record=record,
            frame=frames,
            ordinal=np.asarray(index.frames["ordinal"][frames], np.int32),
            score=np.asarray(scores, np.float32)[order],
            kept=np.asarray(kept, bool)[order],
            meta={**meta, "fingerprint": index.fingerprint},
        )

    def kept_frames(self, record: int) -> Int[np.ndarray, " k"]:
        """Frame rows kept of one record, in frame order; empty if none was scored."""
        start, stop = self._span(record)
        return self.frame[start:stop][self.kept[start:stop]]

    def scores_of(self, frames: Int[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
        """Scores of frame rows that were scored; KeyError for one that was not."""
        where = np.searchsorted(self.frame, frames)
        found = (where < len(self.frame)) & (self.frame[where % max(1, len(self.frame))] == frames)
        if not np.all(found):
            raise KeyError(f"frame rows {np.asarray(frames)[~found].tolist()} were not scored")
        return self.score[where]

    def save(self, path: str | Path) -> None:
        """Writes `path`.npz, then `path`.json, each appearing whole; the same bytes every time."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays = {name: getattr(self, name).astype(dtype) for name, dtype in _ARRAYS.items()}
        partial = path.with_name(path.name + ".partial.npz")
        np.savez_compressed(partial, **arrays)
        os.replace(partial, _with(path, ".npz"))
        summary = {"frames": len(self.frame), "frames_kept": int(self.kept.sum())}
        partial = path.with_name(path.name + ".partial.json")
        partial.write_text(json.dumps({**self.meta, **summary}, indent=2) + "\n", encoding="utf-8")
        os.replace(partial, _with(path, ".json"))

    @staticmethod
    def exists(path: str | Path) -> bool:
        """Whether a whole selection lies at `path` (without suffix)."""
        return _with(path, ".npz").is_file() and _with(path, ".json").is_file()

    @classmethod
    def is_by(cls, weights: str, path: str | Path) -> bool:
        """Whether a whole selection lies at `path` that weights of this checksum have scored."""
        if not cls.exists(path):
            return False
        try:
            meta = json.loads(_with(path, ".json").read_text(encoding="utf-8"))
        except ValueError:
            return False
        return bool(meta.get("weights") == weights)

    @classmethod
    def load(cls, path: str | Path, index: Index) -> Selection:
        """Reads a selection of this data set; UserError if missing, damaged or of another one."""
        if not cls.exists(path):
            raise UserError(
                f"There is no selection {_with(path, '.json')}: stage 1 makes it, so run it first "
                "in this workdir."
            )
        try:
            meta = json.loads(_with(path, ".json").read_text(encoding="utf-8"))
            # np.load leaves a file it cannot make sense of open, unless it is given an open one.
            with _with(path, ".npz").open("rb") as file, np.load(file) as stored:
                arrays = {name: stored[name] for name in _ARRAYS}
        except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error) as error:
            raise UserError(
                f"The selection {_with(path, '.npz')} cannot be read ({error}): remove it and run "
                "stage 1 again."
            ) from error
        if meta.get("fingerprint") != index.fingerprint:
            raise UserError(
                f"The selection {_with(path, '.json')} was made from another data set than "
                f"{index.folder}: run stage 1 on this one, in a workdir of its own."
            )
        return cls(**arrays, meta=meta)

    def _span(self, record: int) -> tuple[int, int]:
        start = np.searchsorted(self._records, record, side="left")
        stop = np.searchsorted(self._records, record, side="right")
        return int(start), int(stop)

    @cached_property
    def _records(self) -> np.ndarray:
        # Frame order is record order: the index lays frames out record after record.
        if np.any(np.diff(self.record) < 0):
            raise ValueError("the rows of a selection are not in frame order")
        return self.record


def _number_kept(rho: float, frames: int) -> int:
    return max(1, math.ceil(rho * frames - 1e-9))


def _rank(scores: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Place of each frame within its group by falling score, 0 the best, ties in order."""
    order = np.lexsort((np.arange(len(scores)), -scores, group))
    starts = np.r_[0, np.flatnonzero(np.diff(group[order])) + 1]
    first = np.repeat(starts, np.diff(np.r_[starts, len(scores)]))
    rank = np.empty(len(scores), np.int64)
    rank[order] = np.arange(len(scores)) - first
    return rank


def _with(path: str | Path, suffix: str) -> Path:
    path = Path(path)
    return path.with_name(path.name + suffix)
