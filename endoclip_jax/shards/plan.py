"""What a preparation will do, decided before anything is written."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from endoclip_jax.errors import UserError
from endoclip_jax.records.manifest import Examination, Reject, Row, examine, read_rows
from endoclip_jax.records.privacy import hashed
from endoclip_jax.records.splits import SPLITS, split_of
from endoclip_jax.shards.card import DATASET_NAME
from endoclip_jax.shards.writer import Block, Settings


@dataclass(frozen=True)
class Plan:
    """The shards to write and the rows that are already known to be left out.

    `source` is a salted digest of the records folder, so that another one is told apart.
    """

    folder: Path
    settings: Settings
    source: str
    blocks: tuple[Block, ...]
    frames_per_block: tuple[int, ...]
    rejects: tuple[Reject, ...]

    @property
    def rows_in(self) -> int:
        return sum(len(block.rows) for block in self.blocks) + len(self.rejects)

    @property
    def frames_in(self) -> int:
        return sum(self.frames_per_block) + sum(reject.frames for reject in self.rejects)

    def stamp(self) -> dict[str, Any]:
        """What must agree for finished shards to be kept."""
        return {"settings": self.settings.as_json(), "source": self.source}


def survey(folder: Path, settings: Settings, salt: bytes) -> Plan:
    """Reads the manifest, the reports and the images' names and sizes, but no image.

    Raises UserError if there is nothing to prepare, or a patient is in two splits.
    """
    digest = hmac.new(salt, b"records", hashlib.sha256)
    seen: dict[str, int] = {}
    accepted: list[tuple[Row, str, int]] = []
    rejects: list[Reject] = []
    chosen: dict[str, tuple[str, int]] = {}
    for row in read_rows(folder):
        examination = examine(folder, row, seen)
        digest.update(_trace(row, examination))
        if isinstance(examination, Reject):
            rejects.append(examination)
            continue
        patient = hashed(salt, "patient", examination.patient_id)
        accepted.append((row, patient, len(examination.images)))
        if examination.split is not None:
            split, first_row = chosen.setdefault(patient, (examination.split, row.number))
            if split != examination.split:
                raise UserError(
                    f"the patient of rows {first_row} and {row.number} is in the splits {split} "
                    f"and {examination.split}: give every patient one split"
                )
    if not accepted:
        raise UserError(f"{folder} has no examination that can be used: {_reasons(rejects)}")
    by_split: dict[str, list[tuple[Row, int]]] = {split: [] for split in SPLITS}
    for row, patient, frames in accepted:
        split = chosen[patient][0] if patient in chosen else split_of(patient, settings.splits)
        by_split[split].append((row, frames))
    blocks, frames_per_block = _blocks(by_split, settings.records_per_shard)
    return Plan(folder, settings, digest.hexdigest(), blocks, frames_per_block, tuple(rejects))


def _blocks(
    by_split: dict[str, list[tuple[Row, int]]], size: int
) -> tuple[tuple[Block, ...], tuple[int, ...]]:
    blocks, frames = [], []
    for split, rows in by_split.items():
        number = -(-len(rows) // size)
        for shard in range(number):
            members = rows[shard * size : (shard + 1) * size]
            name = f"{DATASET_NAME}-{split}.tfrecord-{shard:05d}-of-{number:05d}"
            blocks.append(Block(name, split, tuple(row for row, _ in members)))
            frames.append(sum(count for _, count in members))
    return tuple(blocks), tuple(frames)


def _trace(row: Row, examination: Examination | Reject) -> bytes:
    """What another records folder, or a changed one, would differ in."""
    found: object = (
        examination.reason
        if isinstance(examination, Reject)
        else [
            examination.report,
            [(path.name, path.stat().st_size) for path in examination.images],
            sorted(
                (i, label.polyp, label.indicative)
                for i, label in (examination.frame_labels or {}).items()
            ),
        ]
    )
    return json.dumps([row.number, sorted(row.fields.items()), found]).encode()


def _reasons(rejects: Iterable[Reject]) -> str:
    counts: dict[str, int] = {}
    for reject in rejects:
        counts[reject.reason] = counts.get(reject.reason, 0) + 1
    return ", ".join(f"{reason} ({count})" for reason, count in counts.items())
