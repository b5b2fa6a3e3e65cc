"""Reading what a hospital hands over: a folder with a manifest, or one sub-folder an examination.

Every row of the manifest ends as one `Examination` or one `Reject`; nothing is skipped.
"""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from endoclip_jax.records.frames import IMAGE_SUFFIXES
from endoclip_jax.records.rows import Row, natural_order, read_rows, records_folder
from endoclip_jax.records.splits import SPLITS
from endoclip_jax.records.textfile import decoded_text

NO_POLYP, UNKNOWN_POLYP = -1, -2


@dataclass(frozen=True)
class FrameLabel:
    """What is known of one frame: the polyp's position (NO_POLYP, UNKNOWN_POLYP) and whether it
    is the polyp's most indicative frame."""

    polyp: int
    indicative: bool


@dataclass(frozen=True)
class Examination:
    """One examination, validated: every path exists and lies inside the records folder.

    `pathology` holds Vienna classes (1 to 5, 0 unknown) in polyp order and is empty if unknown;
    `frame_labels` maps the position in `images` to its label and is None if unknown.
    """

    row: int
    patient_id: str
    exam_id: str
    report: str
    images: tuple[Path, ...]
    pathology: tuple[int, ...] = ()
    frame_labels: Mapping[int, FrameLabel] | None = None
    split: str | None = None


@dataclass(frozen=True)
class Reject:
    """A row, or one of its frames, that is left out.

    `reason` names no person, file or id; `raw` may. `frames` is how many images go with it.
    """

    row: int
    reason: str
    patient_id: str = ""
    exam_id: str = ""
    raw: str = ""
    frames: int = 0
    ordinal: int | None = None


class _Refused(Exception):
    """Raised while a row is examined: (reason, raw)."""


def read_records(folder: str | Path) -> Iterator[Examination | Reject]:
    """Every examination of a records folder, in manifest order; UserError if there is none."""
    folder = records_folder(folder)
    seen: dict[str, int] = {}
    for row in read_rows(folder):
        yield examine(folder, row, seen)


def examine(folder: Path, row: Row, seen: dict[str, int] | None = None) -> Examination | Reject:
    """Validates one row against the files it names.

    Args:
      folder: the resolved records folder.
      row: one of `read_rows`.
      seen: exam ids met so far with their row numbers; the row's own is added.
    """
    fields = row.fields
    patient_id, exam_id = fields.get("patient_id", ""), fields.get("exam_id", "")
    images: tuple[Path, ...] = ()
    try:
        if not patient_id or not exam_id:
            raise _Refused("no patient id" if not patient_id else "no examination id", "")
        images = _images(folder, fields.get("images", ""))
        if seen is not None and seen.setdefault(exam_id, row.number) != row.number:
            raise _Refused(f"duplicate examination id (first in row {seen[exam_id]})", exam_id)
        split = fields.get("split", "").lower() or None
        if split not in (None, *SPLITS):
            raise _Refused(f"unknown split (not one of {', '.join(SPLITS)})", fields["split"])
        report = _report(folder, fields)
        pathology = _pathology(fields.get("pathology", ""))
        labels = None
        if fields.get("frame_labels"):
            labels = _frame_labels(folder, fields["frame_labels"], images)
        return Examination(
            row.number, patient_id, exam_id, report, images, pathology, labels, split
        )
    except _Refused as refused:
        reason, raw = refused.args
        return Reject(row.number, reason, patient_id, exam_id, raw, len(images))


def _inside(folder: Path, name: str) -> Path:
    """The path a manifest names, links followed; refused if it leaves the records folder."""
    path = os.path.realpath(os.path.join(folder, name))
    if not _is_inside(folder, path):
        raise _Refused("path leaves the records folder", name)
    return Path(path)


def _is_inside(folder: Path, path: str) -> bool:
    """Whether a path without links or dots lies in a folder that has none, or is it."""
    return path == str(folder) or path.startswith(os.path.join(folder, ""))


def _images(folder: Path, name: str) -> tuple[Path, ...]:
    """The images of a folder, or of a glob, in natural order of their names."""
    if not name:
        raise _Refused("no images", "")
    if any(character in name for character in "*?["):
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise _Refused("path leaves the records folder", name)
        found = [os.fspath(path) for path in folder.glob(name) if _is_image(path.name)]
        links = [path for path in found if os.path.islink(path)]
        links += {os.path.dirname(path) for path in found}  # where a folder on the way is a link
    else:
        path = _inside(folder, name)
        if path.is_file():
            return (path,)
        if not path.is_dir():
            raise _Refused("images folder missing", name)
        with os.scandir(path) as entries:  # which know without a look whether they are links
            images = [entry for entry in entries if _is_image(entry.name)]
        found = [entry.path for entry in images]
        links = [entry.path for entry in images if entry.is_symlink()]
    if not found:
        raise _Refused("no images", name)
    for link in links:
        if not _is_inside(folder, os.path.realpath(link)):
            raise _Refused("path leaves the records folder", link)
    return tuple(Path(path) for path in sorted(found, key=natural_order))


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def _report(folder: Path, fields: Mapping[str, str]) -> str:
    if "report_text" in fields:
        return fields["report_text"]
    name = fields.get("report", "")
    if not name:
        raise _Refused("empty report", "")
    path = _inside(folder, name)
    try:
        text = decoded_text(path.read_bytes())
    except FileNotFoundError:
        raise _Refused("report missing", name) from None
    except OSError as error:
        raise _Refused("report unreadable", f"{name}: {error}") from error
    if text is None:
        raise _Refused("report unreadable: no text in UTF-8, UTF-16 or GB18030", name)
    if not text.strip():
        raise _Refused("empty report", name)
    return text


def _pathology(cell: str) -> tuple[int, ...]:
    """Vienna classes of a JSON list; null and 0 are unknown."""
    if not cell:
        return ()
    try:
        classes = json.loads(cell)
    except ValueError:
        raise _Refused("pathology is not a JSON list", cell) from None
    if not isinstance(classes, list):
        raise _Refused("pathology is not a JSON list", cell)
    for vienna in classes:
        if vienna is not None and (type(vienna) is not int or not 0 <= vienna <= 5):
            raise _Refused("unknown Vienna class (not 1 to 5)", cell)
    return tuple(vienna or 0 for vienna in classes)


def _frame_labels(folder: Path, name: str, images: tuple[Path, ...]) -> dict[int, FrameLabel]:
    """The labels of a CSV `file,polyp,polyp_index[,indicative]`, by position in `images`.

    `file` is an image's name, or its path in the records folder; `polyp_index` counts from 0. A
    polyp frame without an index is UNKNOWN_POLYP, and so is a frame the file does not name.
    """
    path = _inside(folder, name)
    try:
        text = decoded_text(path.read_bytes())
    except OSError as error:
        raise _Refused("frame labels unreadable", f"{name}: {error}") from error
    if text is None:
        raise _Refused("frame labels unreadable", name)
    places = _places_by_name(folder, images)
    labels = {}
    for record in csv.DictReader(text.splitlines()):
        file = (record.get("file") or "").strip()
        if file not in places:
            raise _Refused("frame labels name an image that is not there", f"{name}: {file}")
        try:
            is_polyp = bool(int(record.get("polyp") or 0))
            polyp = int(record.get("polyp_index") or UNKNOWN_POLYP) if is_polyp else NO_POLYP
            indicative = is_polyp and bool(int(record.get("indicative") or 0))
        except ValueError:
            raise _Refused("frame labels hold what is not a number", f"{name}: {file}") from None
        if polyp < UNKNOWN_POLYP or (is_polyp and polyp == NO_POLYP) or polyp > 1000:
            raise _Refused("frame labels hold an impossible polyp index", f"{name}: {file}")
        labels[places[file]] = FrameLabel(polyp, indicative)
    return labels


def _places_by_name(folder: Path, images: tuple[Path, ...]) -> dict[str, int]:
    """Position of each image by its name, where that is unique, and by its path in the folder."""
    names = [path.name for path in images]
    count = Counter(names)
    places = {name: i for i, name in enumerate(names) if count[name] == 1}
    inside = len(os.path.join(folder, ""))
    return places | {str(path)[inside:]: i for i, path in enumerate(images)}
