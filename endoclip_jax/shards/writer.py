"""From examinations to one shard and its part of the index.

A shard is a fixed block of manifest rows of one split. What is in it depends on the rows, the
settings and the salt alone, so that shards are the same whichever process writes them, and when.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import google_crc32c
import numpy as np
import simplejpeg

from endoclip_jax.records.attributes import attribute_bits
from endoclip_jax.records.extraction.reading import Reading
from endoclip_jax.records.frames import FrameError, StoredImage, stored_image
from endoclip_jax.records.manifest import (
    NO_POLYP,
    UNKNOWN_POLYP,
    Examination,
    FrameLabel,
    Reject,
    examine,
)
from endoclip_jax.records.privacy import hashed, names_in, scrub
from endoclip_jax.records.rows import Row
from endoclip_jax.records.splits import SPLITS
from endoclip_jax.shards.example import encode_example
from endoclip_jax.shards.files import whole_file
from endoclip_jax.shards.parts import Part, reject_row, save_part
from endoclip_jax.shards.tfrecord import HEADER_BYTES, frame_record

Tick = Callable[[int], None]
Readings = Mapping[int, Reading]  # by the row's number

_DUPLICATE_BITS = 8  # of the perceptual hash's 144


def _rules() -> dict[str, Any]:
    from endoclip_jax.records.extraction import EXTRACTOR

    return dict(EXTRACTOR)


@dataclass(frozen=True)
class Settings:
    """What decides the content of the shards, beside the records and the salt."""

    long_side: int = 512  # pixels, of a stored frame
    quality: int = 92  # of its JPEG
    splits: tuple[float, float, float] = (80.0, 10.0, 10.0)  # shares of patients
    records_per_shard: int = 64
    drop_duplicates: bool = False  # near-duplicate frames of an examination
    drop_text: bool = False  # frames on which writing seems to be left
    extractor: Mapping[str, Any] = field(default_factory=_rules)  # who reads the reports

    def as_json(self) -> dict[str, Any]:
        """As the card stores them."""
        return asdict(self) | {"splits": list(self.splits), "extractor": dict(self.extractor)}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Settings:
        """The settings of `as_json`."""
        return cls(**{**stored, "splits": tuple(stored["splits"])})


class Block(NamedTuple):
    """The rows of one shard: the name of its part, of its file, and how many frames they have."""

    name: str
    shard: str
    split: str
    rows: tuple[Row, ...]
    frames: int


class StoredFrame(NamedTuple):
    ordinal: int
    image: StoredImage
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
    delivery: int,
    readings: Readings | None,
    tick: Tick,
) -> None:
    """Writes one shard to `out`, then its part to `parts`; finished only when both are there.

    `readings` has what was read in the reports; without it the rules read them here. `tick` is
    called with the number of frames after every examination, and may raise to stop.
    """
    part, digest, offset = Part(), hashlib.sha256(), 0
    with whole_file(out / block.shard) as stream:
        for row in block.rows:
            examination = examine(folder, row)
            framed = b""
            if isinstance(examination, Reject):
                part.rejects.append(reject_row(examination, salt, delivery))
            else:
                reading = readings[row.number] if readings is not None else None
                if reading and reading.answers:
                    part.answers += _answers_elsewhere(examination, reading, salt, parts.parent)
                framed, left_out = _add_examination(
                    part, examination, reading, offset, block.split, settings, salt
                )
                part.rejects += [reject_row(reject, salt, delivery) for reject in left_out]
                tick(len(examination.images))
            stream.write(framed)
            digest.update(framed)
            offset += len(framed)
    save_part(parts / f"{block.name}.npz", part, offset, digest.hexdigest())


def _answers_elsewhere(
    exam: Examination, reading: Reading, salt: bytes, private: Path
) -> list[dict[str, Any]]:
    """Whose the answers are that are not kept in the private folder, and their files."""
    files = [file.absolute() for file in reading.answers]
    elsewhere = [str(file) for file in files if not file.is_relative_to(private)]
    patient = hashed(salt, "patient", exam.patient_id)
    return [{"patient": patient, "files": elsewhere}] if elsewhere else []


def _add_examination(
    part: Part,
    exam: Examination,
    reading: Reading | None,
    offset: int,
    split: str,
    settings: Settings,
    salt: bytes,
) -> tuple[bytes, list[Reject]]:
    """Adds one examination to the part; (its framed record, empty if it is rejected; rejects)."""
    from endoclip_jax.records.extraction import extract

    stored, frame_rejects = _stored_frames(exam, settings)
    frames, duplicates = stored, near_duplicates(stored)
    if settings.drop_duplicates:
        twins = dict(duplicates)
        frame_rejects += [
            _frame_reject(exam, frame.ordinal, f"near-duplicate of frame {twins[frame.ordinal]}")
            for frame in stored
            if frame.ordinal in twins
        ]
        frames = [frame for frame in stored if frame.ordinal not in twins]
    if not frames:
        reject = Reject(
            exam.row, "no image can be read", exam.patient_id, exam.exam_id,
            "; ".join(reject.raw for reject in frame_rejects), len(exam.images),
        )  # fmt: skip
        return b"", [reject]
    patient = hashed(salt, "patient", exam.patient_id)
    exam_hash = hashed(salt, "exam", exam.exam_id)
    reading = reading or Reading(extract(exam.report))
    extraction = reading.extraction
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
            "frame/encoded": [frame.image.jpeg for frame in frames],
        },
        {
            "report/has_polyp": [int(extraction["polyp_present"])],
            "item/attributes": [bit for _, bits, _ in items for bit in bits.tolist()],
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
        jpeg = frame.image.jpeg
        height, width = simplejpeg.decode_jpeg_header(jpeg)[:2]
        crc = google_crc32c.value(jpeg)
        tables["frames"].append(
            (record, frame.ordinal, payload + start, len(jpeg), crc, height, width, frame.polyp)
        )
    for text, bits, count in items:
        tables["items"].append((record, count, bits, bits, len(part.text), len(text.encode())))
        part.text += text.encode()
    for polyp in polyps:
        frame_row = first["frames"] + polyp.frame if polyp.frame >= 0 else -1
        tables["polyps"].append((record, polyp.item, polyp.vienna, frame_row))
    part.notes.append({
        "language": str(extraction["language"]),
        "masked": sum(frame.image.masked for frame in frames),
        "text": [frame.ordinal for frame in frames if frame.image.has_text],
        "duplicates": [] if settings.drop_duplicates else duplicates,
        "reading": reading.note(),
    })  # fmt: skip
    part.private.append({
        "row": exam.row, "patient": patient, "exam": exam_hash, "patient_id": exam.patient_id,
        "exam_id": exam.exam_id, "files": [path.name for path in exam.images], **reading.private(),
    })  # fmt: skip
    return framed, frame_rejects


def near_duplicates(frames: list[StoredFrame]) -> list[tuple[int, int]]:
    """(ordinal, ordinal of the frame kept for it) of frames that resemble one kept before.

    The most indicative frame of a polyp is always kept.
    """
    kept: list[tuple[StoredFrame, int]] = []
    duplicates = []
    for frame in sorted(frames, key=lambda frame: not frame.indicative):
        # As one number, for frames are compared with one another in pairs.
        bits = int.from_bytes(np.packbits(frame.image.perceptual).tobytes(), "big")
        twin = next((other for other, its in kept if _alike(bits, its)), None)
        if twin is None or frame.indicative:
            kept.append((frame, bits))
        else:
            duplicates.append((frame.ordinal, twin.ordinal))
    return sorted(duplicates)


def _alike(a: int, b: int) -> bool:
    return (a ^ b).bit_count() <= _DUPLICATE_BITS


def _stored_frames(exam: Examination, settings: Settings) -> tuple[list[StoredFrame], list[Reject]]:
    frames, rejects = [], []
    for ordinal, path in enumerate(exam.images):
        try:
            image = stored_image(path.read_bytes(), settings.long_side, settings.quality)
        except (FrameError, OSError) as error:
            reason = str(error) if isinstance(error, FrameError) else "image unreadable"
            rejects.append(_frame_reject(exam, ordinal, reason))
            continue
        if settings.drop_text and image.has_text:
            rejects.append(_frame_reject(exam, ordinal, "writing on the picture"))
            continue
        label = FrameLabel(UNKNOWN_POLYP, False)
        if exam.frame_labels is not None:
            label = exam.frame_labels.get(ordinal, label)
        frames.append(StoredFrame(ordinal, image, label.polyp, label.indicative))
    return frames, rejects


def _frame_reject(exam: Examination, ordinal: int, reason: str) -> Reject:
    path = str(exam.images[ordinal])
    return Reject(exam.row, reason, exam.patient_id, exam.exam_id, path, 1, ordinal)


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
