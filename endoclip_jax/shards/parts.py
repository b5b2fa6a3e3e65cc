"""One shard's part of the index, kept in the private folder from which the index is merged."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from endoclip_jax.errors import UserError
from endoclip_jax.records.manifest import Reject
from endoclip_jax.records.privacy import hashed
from endoclip_jax.shards.files import PRIVATE_FILE_MODE, whole_file
from endoclip_jax.shards.index import TABLES, how_to_make_anew

_RAW_FIELDS = ("patient_id", "exam_id", "raw")


@dataclass
class Part:
    """One shard's share of the index, with rows counted from its own beginning.

    `private` and `rejects` hold raw names. `notes` has for each record its language and what was
    noticed on its frames: how many were `masked`, the ordinals that show `text`, and the
    `duplicates` as pairs of ordinals (frame, the earlier one it resembles). `answers` has for each
    report that a model read, of a reject too, whose it is and the `files` that keep its answers,
    unless they are in the private folder.
    """

    tables: dict[str, list[Any]] = field(default_factory=lambda: {name: [] for name in TABLES})
    text: bytearray = field(default_factory=bytearray)
    rejects: list[dict[str, Any]] = field(default_factory=list)
    private: list[dict[str, Any]] = field(default_factory=list)
    notes: list[dict[str, Any]] = field(default_factory=list)
    answers: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class StoredPart:
    """A part as it was saved; `meta` holds bytes, sha256, counts, rejects, private, notes and
    answers."""

    tables: dict[str, np.ndarray]
    text: bytes
    meta: dict[str, Any]


def reject_row(reject: Reject, salt: bytes, delivery: int) -> dict[str, Any]:
    """A reject as it is logged in private; `public_reject` takes the raw fields away."""
    return {
        "delivery": delivery,
        "row": reject.row,
        "patient": hashed(salt, "patient", reject.patient_id) if reject.patient_id else None,
        "exam": hashed(salt, "exam", reject.exam_id) if reject.exam_id else None,
        "kind": "record" if reject.ordinal is None else "frame",
        "ordinal": reject.ordinal,
        "frames": reject.frames,
        "reason": reject.reason,
        "patient_id": reject.patient_id,
        "exam_id": reject.exam_id,
        "raw": reject.raw,
    }


def public_reject(row: Mapping[str, Any]) -> dict[str, Any]:
    """A line of rejects.jsonl: no raw id, no file name."""
    return {key: value for key, value in row.items() if key not in _RAW_FIELDS}


def save_part(path: Path, part: Part, num_bytes: int, sha256: str) -> None:
    """Stores a part as one .npz that only its owner reads."""
    meta = {
        "bytes": num_bytes,
        "sha256": sha256,
        "counts": {name: len(rows) for name, rows in part.tables.items()},
        "rejects": part.rejects,
        "private": part.private,
        "notes": part.notes,
        "answers": part.answers,
    }
    arrays = {name: np.array(rows, TABLES[name]) for name, rows in part.tables.items()}
    arrays["text"] = np.frombuffer(bytes(part.text), np.uint8)
    arrays["meta"] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    with whole_file(path, PRIVATE_FILE_MODE) as stream:
        stream.write(buffer.getbuffer())


def load_part(path: Path) -> StoredPart:
    """A stored part; UserError if it is of another schema."""
    with np.load(path, allow_pickle=False) as stored:
        tables = {name: stored[name] for name in TABLES}
        if not _of_this_schema(tables):
            out = path.parent.parent.with_suffix("")  # OUT of OUT.private/parts/NAME.npz
            raise UserError(f"{out} is of another version of this program: {how_to_make_anew(out)}")
        return StoredPart(tables, stored["text"].tobytes(), json.loads(stored["meta"].tobytes()))


def is_of_this_schema(path: Path) -> bool:
    """Whether a stored part has the tables that this program writes."""
    with np.load(path, allow_pickle=False) as stored:
        return _of_this_schema({name: stored[name] for name in TABLES})


def _of_this_schema(tables: Mapping[str, np.ndarray]) -> bool:
    return all(table.dtype == TABLES[name] for name, table in tables.items())


def load_meta(path: Path) -> dict[str, Any]:
    """What a stored part says of itself, without its tables."""
    with np.load(path, allow_pickle=False) as stored:
        return json.loads(stored["meta"].tobytes())


def load_records(path: Path) -> np.ndarray:
    """The table of records of a stored part alone."""
    with np.load(path, allow_pickle=False) as stored:
        return stored["records"]
