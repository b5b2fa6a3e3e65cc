"""Reading what a hospital hands over: a folder with a manifest, or one sub-folder an examination.

Every row of the manifest ends as one `Examination` or one `Reject`; nothing is skipped.
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from endoclip_jax.errors import UserError
from endoclip_jax.records.frames import IMAGE_SUFFIXES
from endoclip_jax.records.splits import SPLITS
from endoclip_jax.records.textfile import decoded_text

NO_POLYP, UNKNOWN_POLYP = -1, -2
REPORT_FILE = "report.txt"
_MANIFESTS = ("records.csv", "records.jsonl")
_COLUMNS = (
    "patient_id", "exam_id", "report", "report_text", "images", "pathology", "frame_labels", "split"
)  # fmt: skip


class Row(NamedTuple):
    """One row of the manifest as it stands: its number, from 1, and the columns that are filled."""

    number: int
    fields: Mapping[str, str]


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


def records_folder(folder: str | Path) -> Path:
    """The resolved records folder; UserError if it is missing."""
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise UserError(f"the records folder {path} does not exist: pass --records=FOLDER")
    return path.resolve()


def read_rows(folder: Path) -> list[Row]:
    """The rows of the manifest, or of the sub-folders where there is none."""
    found = [folder / name for name in _MANIFESTS if (folder / name).is_file()]
    if len(found) > 1:
        raise UserError(f"{folder} holds both {' and '.join(_MANIFESTS)}: keep one of them")
    if not found:
        return _rows_of_folders(folder)
    text = decoded_text(found[0].read_bytes())
    if text is None:
        raise UserError(f"{found[0]} is no text in UTF-8, UTF-16 or GB18030: save it as UTF-8")
    rows = _rows_of_csv(text) if found[0].suffix == ".csv" else _rows_of_jsonl(text, found[0])
    if not rows:
        raise UserError(f"{found[0]} has no rows: give one examination a row")
    present = {column for row in rows for column in row.fields}
    needed = {"patient_id", "exam_id", "images"} - present
    if not present & {"report", "report_text"}:
        needed.add("report")
    if needed:
        raise UserError(
            f"{found[0]} lacks the column {', '.join(sorted(needed))}: it needs patient_id, "
            "exam_id, report (or report_text) and images"
        )
    return rows


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


def _rows_of_folders(folder: Path) -> list[Row]:
    rows: list[Row] = []
    for child in sorted(folder.iterdir(), key=lambda path: _natural(path.name)):
        if child.is_dir() and (child / REPORT_FILE).is_file():
            fields = {
                "patient_id": child.name,
                "exam_id": child.name,
                "report": f"{child.name}/{REPORT_FILE}",
                "images": child.name,
            }
            rows.append(Row(len(rows) + 1, fields))
    if not rows:
        raise UserError(
            f"{folder} has neither {' nor '.join(_MANIFESTS)} nor sub-folders with a {REPORT_FILE}:"
            " pass --records=FOLDER with one of them"
        )
    return rows


def _rows_of_csv(text: str) -> list[Row]:
    reader = csv.DictReader(text.splitlines(keepends=True))
    return [Row(number, _filled(record)) for number, record in enumerate(reader, 1)]


def _rows_of_jsonl(text: str, path: Path) -> list[Row]:
    rows: list[Row] = []
    for line_number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise UserError(f"line {line_number} of {path} is not JSON ({error})") from error
        if not isinstance(record, dict):
            raise UserError(f"line {line_number} of {path} is not a JSON object")
        rows.append(Row(len(rows) + 1, _filled(record)))
    return rows


def _filled(record: Mapping) -> dict[str, str]:
    """The known columns that hold something, as text."""
    fields = {}
    for column in _COLUMNS:
        value = record.get(column)
        if isinstance(value, list | dict):
            value = json.dumps(value)
        if value is not None and str(value).strip():
            fields[column] = str(value).strip()
    return fields


def _inside(folder: Path, name: str) -> Path:
    """The path a manifest names, links followed; refused if it leaves the records folder."""
    path = (folder / name).resolve()
    if not path.is_relative_to(folder):
        raise _Refused("path leaves the records folder", name)
    return path


def _images(folder: Path, name: str) -> tuple[Path, ...]:
    """The images of a folder, or of a glob, in natural order of their names."""
    if not name:
        raise _Refused("no images", "")
    if any(character in name for character in "*?["):
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise _Refused("path leaves the records folder", name)
        found = [path for path in folder.glob(name) if _is_image(path.name)]
    else:
        path = _inside(folder, name)
        if path.is_file():
            found = [path]
        elif path.is_dir():
            names = [name for name in os.listdir(path) if _is_image(name)]
            found = [path / name for name in names]
        else:
            raise _Refused("images folder missing", name)
    if not found:
        raise _Refused("no images", name)
    for path in found:
        if path.is_symlink() and not path.resolve().is_relative_to(folder):
            raise _Refused("path leaves the records folder", str(path))
    return tuple(sorted(found, key=lambda path: _natural(os.fspath(path))))


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
    count = Counter(path.name for path in images)
    places = {path.name: i for i, path in enumerate(images) if count[path.name] == 1}
    return places | {path.relative_to(folder).as_posix(): i for i, path in enumerate(images)}


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Sorting key under which frame2 comes before frame10."""
    parts = re.split(r"(\d+)", name)
    return [(1, int(p), p) if p.isdecimal() else (0, 0, p) for p in parts]
