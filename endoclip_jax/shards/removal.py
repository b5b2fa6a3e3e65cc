"""Takes patients out of a prepared data set, and everything that was kept of them."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from endoclip_jax.errors import UserError
from endoclip_jax.records.extraction.llm_cache import folder_of_answer
from endoclip_jax.records.privacy import hashed
from endoclip_jax.records.textfile import decoded_text
from endoclip_jax.shards.example import decode_example
from endoclip_jax.shards.files import full_disk_is_told, whole_file
from endoclip_jax.shards.index import CARD_FILE
from endoclip_jax.shards.merge import merge
from endoclip_jax.shards.parts import Part, StoredPart, load_meta, load_part, save_part
from endoclip_jax.shards.plan import REMOVED
from endoclip_jax.shards.state import State, alone, clear_unfinished
from endoclip_jax.shards.tfrecord import frame_record, scan_shard
from endoclip_jax.shards.writer import Settings


class Removal(NamedTuple):
    """What a removal did: the new card, patients asked for, and how many of them were found."""

    card: dict[str, Any]
    asked: int
    found: int


def remove_patients(out: str | Path, file: str | Path) -> Removal:
    """Removes the patients whose raw ids stand in `file`, one a line.

    Their records, frames, hashes, raw ids and file names go; their rows stay in the accounting as
    rejects that name nobody. Of a model's answers those in the private folder all go, and of those
    kept elsewhere (`--llm.cache`) the patients' own; a folder of answers that is not there any more
    is told on standard error. A later delivery cannot bring the patients back. Interrupted, the
    same command goes on; until it is done the data set cannot be opened.
    """
    out = Path(out).expanduser().absolute()
    state = State.load(out)
    under_way = state.removed()[1]
    if not under_way and len(state.merged(out)) != max(1, len(state.deliveries)):
        raise UserError(f"{out} is no finished data set with its private folder: prepare it first")
    asked = _patients(Path(file).expanduser(), state.salt(None))
    with alone(state.private), full_disk_is_told(out):
        clear_unfinished(out, state.private, state.parts)
        known = {
            patient.decode()
            for _, _, name, _ in state.shards()
            for patient in load_part(state.part(name)).tables["records"]["patient"]
        } | {str(row["patient"]) for delivery in state.deliveries for row in delivery.rejects}
        gone = state.removed()[0] | asked
        state.save_removed(gone, under_way=True)
        (out / CARD_FILE).unlink(missing_ok=True)
        lost: set[Path] = set()
        for name, _, part_name, number in state.shards():
            lost |= _forget_answers(state.part(part_name), gone)
            _filter_shard(out / name, state.part(part_name), gone, number)
        for delivery in state.deliveries:
            delivery.rejects = _anonymous(delivery.rejects, gone)
        state.save()
        state.forget_answers()
        for folder in sorted(lost):
            print(
                f"{folder}, where a model's answers about removed patients were kept, is not there "
                "any more: delete them wherever it is now",
                file=sys.stderr,
            )
        card = merge(state, out, Settings.from_json(state.settings))
        state.save_removed(gone, under_way=False)
    return Removal(card, len(asked), len(asked & known))


def _patients(file: Path, salt: bytes) -> frozenset[str]:
    try:
        text = decoded_text(file.read_bytes())
    except OSError as error:
        raise UserError(f"--remove={file} cannot be read ({error})") from error
    if text is None:
        raise UserError(f"--remove={file} is no text: give one patient id a line")
    names = {line.strip() for line in text.splitlines()} - {""}
    if not names:
        raise UserError(f"--remove={file} names nobody: give one patient id a line")
    return frozenset(hashed(salt, "patient", name) for name in names)


def _forget_answers(part: Path, gone: frozenset[str]) -> set[Path]:
    """Removes a model's answers about some patients; the folders of answers that are not there.

    Data sets of before answers were noted have none here.
    """
    lost = set()
    for row in load_meta(part).get("answers", []):
        if row["patient"] in gone:
            for file in map(Path, row["files"]):
                file.unlink(missing_ok=True)
                if not (folder := folder_of_answer(file)).is_dir():
                    lost.add(folder)
    return lost


def _filter_shard(shard: Path, part: Path, gone: frozenset[str], delivery: int) -> None:
    """Rewrites a shard and its part without some patients.

    Both are filtered from what they hold themselves, so that a removal that was killed between
    them is completed by doing it again.
    """
    stored = load_part(part)
    patients = {patient.decode() for patient in stored.tables["records"]["patient"]}
    rejected = {row["patient"] for row in stored.meta["rejects"]}
    if not (patients | rejected) & gone and shard.stat().st_size == stored.meta["bytes"]:
        return
    digest, size = hashlib.sha256(), 0
    with whole_file(shard) as stream:
        for _, payload in scan_shard(shard):
            (patient,) = decode_example(payload)["patient"]
            if isinstance(patient, bytes) and patient.decode() in gone:
                continue
            framed = frame_record(payload)
            stream.write(framed)
            digest.update(framed)
            size += len(framed)
    save_part(part, _filtered(stored, gone, delivery), size, digest.hexdigest())


def _filtered(stored: StoredPart, gone: frozenset[str], delivery: int) -> Part:
    """The part without the records of some patients, positions counted anew."""
    part, offset = Part(), 0
    tables = stored.tables
    rejects = list(stored.meta["rejects"])
    for number, record in enumerate(tables["records"]):
        identity = stored.meta["private"][number]
        if record["patient"].decode() in gone:
            rejects.append(_removed_record(identity["row"], int(record["num_frames"]), delivery))
            continue
        spans = {
            name: slice(int(record[f"first_{one}"]), int(record[f"first_{one}"] + record[many]))
            for name, one, many in (
                ("frames", "frame", "num_frames"),
                ("items", "item", "num_items"),
                ("polyps", "polyp", "num_polyps"),
            )
        }
        moved = {name: tables[name][span].copy() for name, span in spans.items()}
        row = len(part.tables["records"])
        first = {name: len(part.tables[name]) for name in spans}
        for table in moved.values():
            table["record"] = row
        moved["frames"]["offset"] += offset - int(record["offset"])
        shown = moved["polyps"]["frame"] >= 0
        moved["polyps"]["frame"][shown] += first["frames"] - spans["frames"].start
        for item in moved["items"]:
            start = int(item["text_offset"])
            item["text_offset"] = len(part.text)
            part.text += stored.text[start : start + int(item["text_length"])]
        kept = record.copy()
        kept["offset"] = offset
        for name, one in (("frames", "frame"), ("items", "item"), ("polyps", "polyp")):
            kept[f"first_{one}"] = first[name]
            part.tables[name] += [np.void(entry) for entry in moved[name]]
        part.tables["records"].append(kept)
        part.private.append(identity)
        part.notes.append(stored.meta["notes"][number])
        offset += int(record["length"])
    part.rejects = _anonymous(rejects, gone)
    part.answers = [row for row in stored.meta.get("answers", []) if row["patient"] not in gone]
    return part


def _anonymous(rejects: Iterable[dict[str, Any]], gone: frozenset[str]) -> list[dict[str, Any]]:
    """The rejects, those of removed patients without hash, id and name.

    A removed patient's rejected frames are counted with the record that went.
    """
    kept: list[dict[str, Any]] = []
    frames: dict[int, int] = {}
    for row in rejects:
        if row["patient"] not in gone:
            kept.append(dict(row))
        elif row["kind"] == "frame":
            frames[row["row"]] = frames.get(row["row"], 0) + row["frames"]
        else:
            kept.append(_removed_record(row["row"], row["frames"], row["delivery"]))
    for row in kept:
        if row["reason"] == REMOVED and row["patient"] is None:
            row["frames"] += frames.pop(row["row"], 0)
    return kept


def _removed_record(row: int, frames: int, delivery: int) -> dict[str, Any]:
    return {
        "delivery": delivery, "row": row, "patient": None, "exam": None, "kind": "record",
        "ordinal": None, "frames": frames, "reason": REMOVED, "patient_id": "", "exam_id": "",
        "raw": "",
    }  # fmt: skip
