"""Labelled frames for evaluation: a folder whose `labels.csv` has `file,polyp[,vienna,patient]`.

Three more columns are read where they are there, for results by part: `segment` (of the colon),
`size_class` and `imaging`, each any short word, or empty.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int, UInt8

from endoclip_jax.data.loaders import Batches
from endoclip_jax.data.order import InOrder, Share
from endoclip_jax.data.source import Faults
from endoclip_jax.data.transforms import resize
from endoclip_jax.data.views import Batch, empty_frames
from endoclip_jax.errors import UserError
from endoclip_jax.records.field import cut_to_field
from endoclip_jax.records.frames import FrameError, decode_image

LABELS_FILE = "labels.csv"
STRATA = ("segment", "size_class", "imaging")
_POLYP = {"0": False, "1": True, "false": False, "true": True}


@dataclass(frozen=True)
class LabelledFrames:
    """Frames and what is known of them; `vienna` 0 is unknown, `patient` the file name if none.

    `strata` has the optional columns that there are, "" where a cell is empty. `unnamed` counts
    the frames whose patient is not named, each taken for a patient of its own.
    """

    paths: tuple[Path, ...]
    polyp: Bool[np.ndarray, " n"]
    vienna: Int[np.ndarray, " n"]
    patient: tuple[str, ...]
    strata: Mapping[str, np.ndarray] = field(default_factory=dict)
    unnamed: int = 0

    def __len__(self) -> int:
        return len(self.paths)


def read_labelled(folder: str | Path) -> LabelledFrames:
    """Reads `labels.csv`; files are relative to the folder, or to its `images`.

    UserError, with the line, for a missing file, one that lies outside the folder, one named twice,
    or a label that is none.
    """
    folder = Path(folder).expanduser().absolute()
    labels = folder / LABELS_FILE
    try:
        with labels.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"{labels} cannot be read ({error}): a labelled set is a folder with {LABELS_FILE}, "
            "columns file,polyp[,vienna,patient]."
        ) from error
    if not rows or not {"file", "polyp"} <= rows[0].keys():
        raise UserError(f"{labels} needs the columns file and polyp, and at least one frame.")
    root = os.path.realpath(folder)
    paths, polyp, vienna, patient = [], [], [], []
    for line, row in enumerate(rows, start=2):
        path = _find(folder, root, row["file"] or "", f"{labels}, line {line}")
        paths.append(path)
        polyp.append(_polyp(row["polyp"], f"{labels}, line {line}"))
        vienna.append(_vienna(row.get("vienna"), f"{labels}, line {line}"))
        patient.append(row.get("patient") or path.name)
    if len(set(paths)) < len(paths):
        twice = next(path for path in paths if paths.count(path) > 1)
        raise UserError(f"{labels} names {twice.name} twice: leave one line.")
    strata = {
        column: np.array([(row[column] or "").strip() for row in rows], str)
        for column in STRATA
        if column in rows[0]
    }
    return LabelledFrames(
        tuple(paths),
        np.array(polyp, bool),
        np.array(vienna, np.int16),
        tuple(patient),
        strata,
        unnamed=sum(not row.get("patient") for row in rows),
    )


def labelled_batches(
    labelled: LabelledFrames,
    batch: int,
    image_size: int,
    *,
    process_index: int = 0,
    process_count: int = 1,
) -> Batches:
    """Every frame once, in order, cut to its field of view and resized as stored frames are.

    Elements are those of `scoring_batches`, `frame` being the position in `labelled`.
    """
    share = Share(batch, process_index, process_count)
    return _in_order(labelled.paths, share, image_size)


def file_batches(paths: Sequence[Path], batch: int, image_size: int) -> Batches:
    """The same for any image files, `frame` being the position in `paths`."""
    return _in_order(paths, Share(batch, 0, 1), image_size)


def field_image(
    pixels: UInt8[np.ndarray, "h w 3"], image_size: int
) -> UInt8[np.ndarray, "image_size image_size 3"]:
    """A whole picture as evaluation sees it: cut to its field as at preparation, and resized."""
    cut, _ = cut_to_field(pixels)
    return resize(np.ascontiguousarray(cut), image_size)


def _in_order(paths: Sequence[Path], share: Share, image_size: int) -> Batches:
    faults = Faults()
    order = InOrder(len(paths), share.global_batch, balanced=False)
    return Batches(_FileView(paths, image_size, faults), order, share, faults)


@dataclass(frozen=True)
class _FileView:
    paths: Sequence[Path]
    image_size: int
    faults: Faults

    def empty(self, rows: int) -> Batch:
        return empty_frames(rows, self.image_size, self.image_size)

    def fill(self, batch: Batch, row: int, epoch: int, unit: int) -> None:
        batch["frame"][row] = unit
        path = self.paths[unit]
        try:
            pixels = decode_image(path.read_bytes())
        except (OSError, FrameError) as error:
            self.faults.note(unit, f"frame {path.name} cannot be used ({error})")
            return
        batch["image"][row], batch["valid"][row] = field_image(pixels, self.image_size), True


def _find(folder: Path, root: str, name: str, where: str) -> Path:
    """A named frame in `folder`, whose real path is `root`."""
    for path in (folder / name, folder / "images" / name):
        if name and path.is_file():
            if os.path.commonpath([root, os.path.realpath(path)]) != root:
                raise UserError(f"{where}: {name} leads out of the folder; copy the frame into it.")
            return path
    raise UserError(f"{where}: there is no frame {name!r} in {folder}.")


def _polyp(text: str | None, where: str) -> bool:
    label = _POLYP.get((text or "").strip().lower())
    if label is None:
        raise UserError(f"{where}: polyp is {text!r} and has to be 0 or 1.")
    return label


def _vienna(text: str | None, where: str) -> int:
    text = (text or "").strip()
    if text in ("", "0"):
        return 0
    if text not in ("1", "2", "3", "4", "5"):
        raise UserError(f"{where}: vienna is {text!r} and has to be 1 to 5, or empty.")
    return int(text)
