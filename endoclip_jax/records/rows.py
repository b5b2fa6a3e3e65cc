"""The rows of a records folder: of its manifest, or of its sub-folders where there is none."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from endoclip_jax.errors import UserError
from endoclip_jax.records.textfile import decoded_text

REPORT_FILE = "report.txt"
_MANIFESTS = ("records.csv", "records.jsonl")
_COLUMNS = (
    "patient_id", "exam_id", "report", "report_text", "images", "pathology", "frame_labels", "split"
)  # fmt: skip


class Row(NamedTuple):
    """One row of the manifest as it stands: its number, from 1, and the columns that are filled."""

    number: int
    fields: Mapping[str, str]


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


def _rows_of_folders(folder: Path) -> list[Row]:
    rows: list[Row] = []
    for child in sorted(folder.iterdir(), key=lambda path: natural_order(path.name)):
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


def natural_order(name: str) -> list[tuple[int, int, str]]:
    """Sorting key under which frame2 comes before frame10."""
    parts = re.split(r"(\d+)", name)
    return [(1, int(p), p) if p.isdecimal() else (0, 0, p) for p in parts]
