"""From examinations to one shard and its part of the index.

A shard is a fixed block of manifest rows of one split. What is in it depends on the rows, the
settings and the salt alone, so that shards are the same whichever process writes them, and when.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import google_crc32c
import numpy as np

from endoclip_jax.records.attributes import attribute_bits
from endoclip_jax.records.frames import FrameError, stored_jpeg
from endoclip_jax.records.manifest import (
    NO_POLYP,
    UNKNOWN_POLYP,
    Examination,
    FrameLabel,
    Reject,
    Row,
    examine,
)
from endoclip_jax.records.privacy import hashed, names_in, scrub
from endoclip_jax.records.splits import SPLITS
from endoclip_jax.shards.example import encode_example
from endoclip_jax.shards.files import PRIVATE_FILE_MODE, whole_file
from endoclip_jax.shards.index import TABLES
from endoclip_jax.shards.tfrecord import HEADER_BYTES, frame_record

Tick = Callable[[int], None]


@dataclass(frozen=True)
class Settings:
    """What decides the content of the shards, beside the records and the salt."""

    long_side: int = 512  # pixels, of a stored frame
    quality: int = 92  # of its JPEG
    splits: tuple[float, float, float] = (80.0, 10.0, 10.0)  # shares of patients
    records_per_shard: int = 64

    def as_json(self) -> dict[str, Any]:
        """As the card stores them."""
        return asdict(self) | {"splits": list(self.splits)}


class Block(NamedTuple):
    """The rows of one shard."""

    shard: str
    split: str
    rows: tuple[Row, ...]


@dataclass
class Part:
    """One shard's share of the index, with rows counted from its own beginning.

    `private` and `rejects` hold raw names; they and the whole part stay in the private folder
    until the merge.
    """

    tables: dict[str, list[tuple]] = field(default_factory=lambda: {name: [] for name in TABLES})
    text: bytearray = field(default_factory=bytearray)
    rejects: list[dict[str, Any]] = field(default_factory=list)
    private: list[dict[str, Any]] = field(default_factory=list)
    languages: list[str] = field(default_factory=list)


class StoredFrame(NamedTuple):
    ordinal: int
    jpeg: bytes
    polyp: int
    indicative: bool


class Polyp(NamedTuple):
    item: int
    vienna: int
    frame: int  # position among the stored frames, -1 none


def write_block(
    block: Block,
    *,
    folder: Path,
    out: Path,
    parts: Path,
    settings: Settings,
    salt: bytes,
    tick: Tick,
) -> None:
    """Writes one shard to `out`, then its part to `parts`; finished only when both are there.

    `tick` is called with the number of frames after every examination, and may raise to stop.
    """
    part, digest, offset = Part(), hashlib.sha256(), 0
    with whole_file(out / block.shard) as stream:
        for row in block.rows:
            examination = examine(folder, row)
            framed = b""
            if isinstance(examination, Reject):
                part.rejects.append(reject_row(examination, salt))
            else:
                framed = _add_examination(part, examination, offset, block.split, settings, salt)
                tick(len(examination.images))
            stream.write(framed)
            digest.update(framed)
            offset += len(framed)
    save_part(parts / f"{block.shard}.npz", part, offset, digest.hexdigest())


def reject_row(reject: Reject, salt: bytes) -> dict[str, Any]:
    """A reject as it is logged in private; `public_reject` takes the raw fields away."""
    return {
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
    return {key: value for key, value in row.items() if key not in ("patient_id", "exam_id", "raw")}


def save_part(path: Path, part: Part, num_bytes: int, sha256: str) -> None:
    """Stores a part as one .npz that only its owner reads."""
    meta = {
        "bytes": num_bytes,
        "sha256": sha256,
        "rejects": part.rejects,
        "private": part.private,
        "languages": part.languages,
    }
    arrays = {name: np.array(rows, TABLES[name]) for name, rows in part.tables.items()}
    arrays["text"] = np.frombuffer(bytes(part.text), np.uint8)
    arrays["meta"] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    with whole_file(path, PRIVATE_FILE_MODE) as stream:
        stream.write(buffer.getbuffer())


def load_part(path: Path) -> tuple[dict[str, np.ndarray], bytes, dict[str, Any]]:
    """(tables, text, meta) of a stored part."""
    with np.load(path, allow_pickle=False) as stored:
        tables = {name: stored[name] for name in TABLES}
        return tables, stored["text"].tobytes(), json.loads(stored["meta"].tobytes())


def _add_examination(
    part: Part, exam: Examination, offset: int, split: str, settings: Settings, salt: bytes
) -> bytes:
    """Adds one examination to the part; its framed record, empty if it is rejected."""
    from endoclip_jax.records.extraction import extract

    frames, frame_rejects = _stored_frames(exam, settings)
    if not frames:
        reject = Reject(
            exam.row, "no image can be read", exam.patient_id, exam.exam_id,
            "; ".join(reject.raw for reject in frame_rejects), len(exam.images),
        )  # fmt: skip
        part.rejects.append(reject_row(reject, salt))
        return b""
    patient = hashed(salt, "patient", exam.patient_id)
    exam_hash = hashed(salt, "exam", exam.exam_id)
    extraction = extract(exam.report)
    names, identifiers = names_in(exam.report), (exam.patient_id, exam.exam_id)
    items = [
        (
            scrub(str(polyp["description"]), names, identifiers),
            np.asarray(attribute_bits(polyp), np.uint8),
            int(polyp["count"]),
        )
        for polyp in extraction["polyps"]
    ]
    diagnostic = scrub(" ".join(extraction["diagnostic_sentences"]), names, identifiers)
    polyps = _polyps(exam, frames, [count for _, _, count in items])
    encoded = encode_example(
        {
            "patient": [patient.encode()],
            "exam": [exam_hash.encode()],
            "report/diagnostic": [diagnostic.encode()],
            "item/description": [text.encode() for text, _, _ in items],
            "frame/encoded": [frame.jpeg for frame in frames],
        },
        {
            "report/has_polyp": [int(extraction["polyp_present"])],
            "item/attributes": [int(bit) for _, bits, _ in items for bit in bits],
            "item/count": [count for _, _, count in items],
            "frame/ordinal": [frame.ordinal for frame in frames],
            "frame/polyp": [frame.polyp for frame in frames],
            "polyp/item": [polyp.item for polyp in polyps],
            "polyp/vienna": [polyp.vienna for polyp in polyps],
            "polyp/frame": [polyp.frame for polyp in polyps],
        },
    )
    framed = frame_record(encoded.data)

    tables = part.tables
    record = len(tables["records"])
    first = {name: len(tables[name]) for name in ("frames", "items", "polyps")}
    tables["records"].append((
        0, offset, len(framed), SPLITS.index(split), patient.encode(), exam_hash.encode(),
        first["frames"], len(frames), first["items"], len(items),
        sum(count for _, _, count in items), first["polyps"], len(polyps),
        int(extraction["polyp_present"]),
    ))  # fmt: skip
    payload = offset + HEADER_BYTES
    for frame, start in zip(frames, encoded.offsets["frame/encoded"], strict=True):
        crc = google_crc32c.value(frame.jpeg)
        tables["frames"].append(
            (record, frame.ordinal, payload + start, len(frame.jpeg), crc, frame.polyp)
        )
    for text, bits, count in items:
        tables["items"].append((record, count, bits, bits, len(part.text), len(text.encode())))
        part.text += text.encode()
    for polyp in polyps:
        frame_row = first["frames"] + polyp.frame if polyp.frame >= 0 else -1
        tables["polyps"].append((record, polyp.item, polyp.vienna, frame_row))
    part.rejects += [reject_row(reject, salt) for reject in frame_rejects]
    part.languages.append(str(extraction["language"]))
    part.private.append({
        "row": exam.row, "patient": patient, "exam": exam_hash, "patient_id": exam.patient_id,
        "exam_id": exam.exam_id, "files": [path.name for path in exam.images],
    })  # fmt: skip
    return framed


def _stored_frames(exam: Examination, settings: Settings) -> tuple[list[StoredFrame], list[Reject]]:
    frames, rejects = [], []
    for ordinal, path in enumerate(exam.images):
        try:
            jpeg = stored_jpeg(path.read_bytes(), settings.long_side, settings.quality)
        except (FrameError, OSError) as error:
            reason = str(error) if isinstance(error, FrameError) else "image unreadable"
            rejects.append(
                Reject(
                    exam.row, reason, exam.patient_id, exam.exam_id, str(path), 1, ordinal
                )
            )  # fmt: skip
            continue
        label = FrameLabel(UNKNOWN_POLYP, False)
        if exam.frame_labels is not None:
            label = exam.frame_labels.get(ordinal, label)
        frames.append(StoredFrame(ordinal, jpeg, label.polyp, label.indicative))
    return frames, rejects


def _polyps(exam: Examination, frames: list[StoredFrame], counts: list[int]) -> list[Polyp]:
    """The polyps known one by one, from pathology and frame labels.

    A polyp belongs to the item it falls on when the items' counts, laid out in order, are as many
    as the polyps; else to none. Its most indicative frame is the one marked so, else its first.
    """
    number = max([len(exam.pathology), *(frame.polyp + 1 for frame in frames)])
    owners = [item for item, count in enumerate(counts) for _ in range(count)]
    if len(owners) != number:
        owners = [-1] * number
    polyps = []
    for polyp in range(number):
        shown = [i for i, frame in enumerate(frames) if frame.polyp == polyp]
        marked = [i for i in shown if frames[i].indicative]
        vienna = exam.pathology[polyp] if polyp < len(exam.pathology) else 0
        polyps.append(Polyp(owners[polyp], vienna, (marked + shown + [NO_POLYP])[0]))
    return polyps
