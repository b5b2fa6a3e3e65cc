"""What a preparation will do, decided before anything is written."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from endoclip_jax.errors import UserError
from endoclip_jax.records.dicom import DICOM_SUFFIXES, can_read_dicom
from endoclip_jax.records.manifest import Examination, Reject, examine
from endoclip_jax.records.privacy import hashed
from endoclip_jax.records.rows import Row, read_rows
from endoclip_jax.records.splits import SPLITS, split_of
from endoclip_jax.shards.parts import load_records, reject_row
from endoclip_jax.shards.state import Delivery, State, shard_name
from endoclip_jax.shards.writer import Block, Settings

REMOVED = "patient was removed from the data set"
KNOWN = "examination is in the data set already"


@dataclass(frozen=True)
class Candidate:
    """An examination that can be used: its hashes, how many frames, the split it asks for."""

    row: Row
    patient: str
    exam: str
    frames: int
    split: str | None


@dataclass(frozen=True)
class Survey:
    """A records folder as it stands. `source` is its salted digest, so that another one, or a
    changed one, is told apart."""

    folder: Path
    source: str
    candidates: tuple[Candidate, ...]
    rejects: tuple[Reject, ...]


@dataclass(frozen=True)
class Earlier:
    """What a data set holds before a delivery: the split of each patient, hashes of its
    examinations, of patients that were removed, and how many shards each split has."""

    split_of_patient: Mapping[str, str]
    exams: frozenset[str]
    removed: frozenset[str]
    shards: Mapping[str, int]

    @classmethod
    def read(cls, state: State, number: int) -> Earlier:
        """What the first `number` deliveries left behind."""
        splits: dict[str, str] = {}
        exams: set[str] = set()
        shards = dict.fromkeys(SPLITS, 0)
        for delivery in state.deliveries[:number]:
            for name, split in delivery.shards:
                shards[split] += 1
                records = load_records(state.part(name))
                splits.update((patient.decode(), split) for patient in records["patient"])
                exams.update(exam.decode() for exam in records["exam"])
        return cls(splits, frozenset(exams), state.removed()[0], shards)


@dataclass(frozen=True)
class Plan:
    """The shards to write for one delivery and the rows that are already known to be left out."""

    survey: Survey
    blocks: tuple[Block, ...]
    rejects: tuple[Reject, ...]

    def delivery(self, salt: bytes, number: int) -> Delivery:
        """The plan as the private folder keeps it."""
        return Delivery(
            self.survey.source,
            [(block.name, block.split) for block in self.blocks],
            sum(len(block.rows) for block in self.blocks) + len(self.rejects),
            sum(block.frames for block in self.blocks) + sum(r.frames for r in self.rejects),
            [reject_row(reject, salt, number) for reject in self.rejects],
        )


def survey(folder: Path, salt: bytes) -> Survey:
    """Reads the manifest, the reports and the images' names and sizes, but no image.

    Raises UserError if there is nothing to prepare, or DICOM files that cannot be read.
    """
    digest = hmac.new(salt, b"records", hashlib.sha256)
    seen: dict[str, int] = {}
    candidates: list[Candidate] = []
    rejects: list[Reject] = []
    for row in read_rows(folder):
        examination = examine(folder, row, seen)
        digest.update(_trace(row, examination))
        if isinstance(examination, Reject):
            rejects.append(examination)
            continue
        if any(path.suffix.lower() in DICOM_SUFFIXES for path in examination.images):
            _check_dicom(folder)
        patient = hashed(salt, "patient", examination.patient_id)
        exam = hashed(salt, "exam", examination.exam_id)
        candidates.append(Candidate(row, patient, exam, len(examination.images), examination.split))
    if not candidates:
        raise UserError(f"{folder} has no examination that can be used: {_reasons(rejects)}")
    return Survey(folder, digest.hexdigest(), tuple(candidates), tuple(rejects))


def plan(surveyed: Survey, settings: Settings, earlier: Earlier, number: int) -> Plan:
    """The shards of delivery `number`, given what the data set holds already.

    Raises UserError if a patient is in two splits, or nothing is left to add.
    """
    rejects = list(surveyed.rejects)
    accepted = []
    for candidate in surveyed.candidates:
        number_and_frames = candidate.row.number, candidate.frames
        if candidate.patient in earlier.removed:  # nothing may be kept that names the patient
            rejects.append(_left_out(*number_and_frames, REMOVED))
        elif candidate.exam in earlier.exams:
            ids = candidate.row.fields["patient_id"], candidate.row.fields["exam_id"]
            rejects.append(_left_out(*number_and_frames, KNOWN, *ids))
        else:
            accepted.append(candidate)
    if not accepted:
        raise UserError(f"{surveyed.folder} has nothing to add: {_reasons(rejects)}")
    by_split: dict[str, list[Candidate]] = {split: [] for split in SPLITS}
    for candidate in _with_splits(accepted, settings, earlier.split_of_patient):
        by_split[candidate.split or ""].append(candidate)
    blocks = _blocks(by_split, settings.records_per_shard, earlier.shards, number)
    return Plan(surveyed, blocks, tuple(rejects))


def _left_out(row: int, frames: int, reason: str, patient: str = "", exam: str = "") -> Reject:
    return Reject(row, reason, patient, exam, frames=frames)


def _with_splits(
    candidates: list[Candidate], settings: Settings, known: Mapping[str, str]
) -> list[Candidate]:
    """Every candidate with its split: as the manifest says, as before, or by the hash."""
    chosen: dict[str, tuple[str, str]] = {
        patient: (split, "an earlier delivery") for patient, split in known.items()
    }
    for candidate in candidates:
        if candidate.split is None:
            continue
        where = f"row {candidate.row.number}"
        split, before = chosen.setdefault(candidate.patient, (candidate.split, where))
        if split != candidate.split:
            raise UserError(
                f"the patient of {before} and {where} is in the splits {split} and "
                f"{candidate.split}: give every patient one split"
            )
    return [
        replace(
            candidate,
            split=chosen[candidate.patient][0]
            if candidate.patient in chosen
            else split_of(candidate.patient, settings.splits),
        )
        for candidate in candidates
    ]


def _blocks(
    by_split: dict[str, list[Candidate]], size: int, before: Mapping[str, int], delivery: int
) -> tuple[Block, ...]:
    blocks = []
    for split, members in by_split.items():
        number = -(-len(members) // size)
        for i in range(number):
            chunk = members[i * size : (i + 1) * size]
            blocks.append(
                Block(
                    f"{delivery:03d}-{split}-{i:05d}",
                    shard_name(split, before[split] + i, before[split] + number),
                    split,
                    tuple(candidate.row for candidate in chunk),
                    sum(candidate.frames for candidate in chunk),
                )
            )
    return tuple(blocks)


def _check_dicom(folder: Path) -> None:
    if not can_read_dicom():
        raise UserError(
            f"{folder} holds DICOM files and pydicom is not installed: "
            "pip install 'endoclip_jax[dicom]'"
        )


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
