"""The private folder beside a data set: salt, deliveries, parts, locks.

    OUT.private/salt                    key of the id hashes
    OUT.private/deliveries.json         settings, and for each records folder that went in: its
                                        salted digest, its shards, its counts, its early rejects
    OUT.private/removed.json            hashes of removed patients; whether a removal is under way
    OUT.private/parts/SHARD.npz         each shard's part of the index, with raw ids and names
    OUT.private/{ids,rejects_raw}.jsonl what leads from a hash back to a person or a file
    OUT.private/disagreements.jsonl     where rules and model read a report otherwise, for a person
    OUT.private/llm_cache               a model's answers, so that nothing is asked twice

From the parts and the deliveries alone the whole index is merged, at any time and again.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from endoclip_jax.errors import UserError
from endoclip_jax.records.extraction.llm_cache import answers_folder
from endoclip_jax.records.privacy import new_salt, read_salt
from endoclip_jax.records.splits import SPLITS
from endoclip_jax.shards.files import PRIVATE_FILE_MODE, UNFINISHED, private_folder, write_whole
from endoclip_jax.shards.index import CARD_FILE, DATASET_NAME, read_card

_SALT_FILE, _DELIVERIES_FILE, _REMOVED_FILE = "salt", "deliveries.json", "removed.json"


@dataclass
class Delivery:
    """One records folder that went into the data set.

    `shards` are (name of the part, split); `rejects` what was left out before anything was read.
    """

    source: str
    shards: list[tuple[str, str]]
    rows_in: int
    frames_in: int
    rejects: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class State:
    """What the private folder knows of its data set."""

    private: Path
    settings: dict[str, Any]
    deliveries: list[Delivery]

    @classmethod
    def load(cls, out: Path) -> State:
        """The state beside `out`; empty if nothing was begun there, or `out` was moved away: then
        the salt and who was removed are all that still holds."""
        private = private_of(out)
        path = private / _DELIVERIES_FILE
        if not (path.exists() and out.exists()):
            return cls(private, {}, [])
        stored = json.loads(path.read_text(encoding="utf-8"))
        deliveries = [
            Delivery(**{**row, "shards": [(name, split) for name, split in row["shards"]]})
            for row in stored["deliveries"]
        ]
        return cls(private, stored["settings"], deliveries)

    def begin_anew(self) -> None:
        """Forgets what was delivered to a data set that is there no more."""
        (self.private / _DELIVERIES_FILE).unlink(missing_ok=True)
        removed, under_way = self.removed()
        if under_way:
            self.save_removed(removed, under_way=False)

    def save(self) -> None:
        """Writes the deliveries."""
        stored = {"settings": self.settings, "deliveries": [asdict(d) for d in self.deliveries]}
        write_whole(self.private / _DELIVERIES_FILE, json.dumps(stored), PRIVATE_FILE_MODE)

    def merged(self, out: Path) -> list[str]:
        """The sources of the deliveries that the data set in `out` holds; none if unfinished."""
        if not (self.deliveries and (out / CARD_FILE).exists()):
            return []
        return list(read_card(out)["sources"])

    @property
    def parts(self) -> Path:
        return self.private / "parts"

    def part(self, name: str) -> Path:
        """The file of a part."""
        return self.parts / f"{name}.npz"

    def make_folders(self) -> None:
        """Makes the folders that only their owner may enter."""
        private_folder(self.private)
        private_folder(self.parts)

    def salt(self, given: bytes | None) -> bytes:
        """The salt stored, else the one given, else a new one; UserError if two differ."""
        path = self.private / _SALT_FILE
        stored = read_salt(path) if path.exists() else None
        if stored and given and stored != given:
            raise UserError(f"the salt given is not the one in {path}: leave it out")
        return stored or given or new_salt()

    def keep_salt(self, salt: bytes) -> bool:
        """Stores the salt; False if another is stored already."""
        path = self.private / _SALT_FILE
        if not path.exists():
            write_whole(path, salt.hex(), PRIVATE_FILE_MODE)
        return read_salt(path) == salt

    def removed(self) -> tuple[frozenset[str], bool]:
        """(hashes of removed patients, whether their removal is still under way)."""
        path = self.private / _REMOVED_FILE
        if not path.exists():
            return frozenset(), False
        stored = json.loads(path.read_text(encoding="utf-8"))
        return frozenset(stored["patients"]), stored["under_way"]

    def save_removed(self, patients: Iterable[str], *, under_way: bool) -> None:
        """Keeps the hashes of removed patients."""
        stored = {"patients": sorted(patients), "under_way": under_way}
        write_whole(self.private / _REMOVED_FILE, json.dumps(stored), PRIVATE_FILE_MODE)

    def forget_answers(self) -> None:
        """Removes a model's answers, which cannot be told apart by patient."""
        answers = answers_folder(self.private)
        if answers.exists():
            shutil.rmtree(answers)

    def shards(self) -> list[tuple[str, str, str, int]]:
        """(shard's file name, split, name of its part, delivery) in index order."""
        ordered = []
        for split in SPLITS:
            names = [
                (name, number)
                for number, delivery in enumerate(self.deliveries)
                for name, member in delivery.shards
                if member == split
            ]
            for i, (name, number) in enumerate(names):
                ordered.append((shard_name(split, i, len(names)), split, name, number))
        return ordered


def private_of(out: Path) -> Path:
    """The private folder of the data set `out`: beside it, never inside."""
    return out.with_name(out.name + ".private")


def shard_name(split: str, number: int, total: int) -> str:
    """File name of a shard, as TensorFlow Datasets expects it."""
    return f"{DATASET_NAME}-{split}.tfrecord-{number:05d}-of-{total:05d}"


def clear_unfinished(*folders: Path) -> None:
    """Removes what killed processes left half-written; only under the whole lock."""
    for folder in folders:
        for path in folder.glob(f"*{UNFINISHED}"):
            path.unlink()


@contextmanager
def alone(private: Path) -> Iterator[None]:
    """Holds the data set's lock; UserError if another process, or a task, holds it."""
    with _locked(private / "lock", fcntl.LOCK_EX) as held:
        if not held:
            raise UserError(f"another process is preparing here ({private}): wait for it")
        yield


@contextmanager
def as_task(private: Path, task: int, tasks: int) -> Iterator[None]:
    """Holds one task's lock, beside other tasks."""
    mine = private / f"task-{task}-of-{tasks}.lock"
    with _locked(private / "lock", fcntl.LOCK_SH) as shared, _locked(mine, fcntl.LOCK_EX) as held:
        if not (shared and held):
            raise UserError(f"another process is preparing here ({private}): wait for it")
        yield


@contextmanager
def registering(private: Path) -> Iterator[None]:
    """Waits until no other task is writing salt and deliveries."""
    with _locked(private / "register.lock", fcntl.LOCK_EX, wait=True):
        yield


@contextmanager
def _locked(path: Path, kind: int, *, wait: bool = False) -> Iterator[bool]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, PRIVATE_FILE_MODE)
    try:
        try:
            fcntl.flock(descriptor, kind if wait else kind | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)
