"""From a records folder to a prepared data set, on all cores, interruptible at any moment."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from endoclip_jax.errors import UserError
from endoclip_jax.records.frames import MIN_SIDE
from endoclip_jax.records.manifest import records_folder
from endoclip_jax.records.privacy import new_salt, read_salt
from endoclip_jax.shards.files import (
    PRIVATE_FILE_MODE,
    full_disk_is_told,
    private_folder,
    write_whole,
)
from endoclip_jax.shards.index import CARD_FILE, read_card
from endoclip_jax.shards.merge import merge
from endoclip_jax.shards.plan import Plan, survey
from endoclip_jax.shards.writer import Block, Settings, Tick, load_part, write_block

_PLAN_FILE, _SALT_FILE, _PARTS = "plan.json", "salt", "parts"
_TERMINAL_INTERVAL, _LOG_INTERVAL = 0.5, 10.0  # seconds between progress lines


@dataclass(frozen=True)
class Summary:
    """What a preparation did: the data card, and whether there was anything left to do."""

    out: Path
    card: dict[str, Any]
    already_done: bool

    def lines(self) -> Iterator[str]:
        """The accounting, for a person."""
        count, splits = self.card["accounting"], self.card["splits"]
        yield (
            f"records: {count['rows_in']} in = {count['records']} stored + "
            f"{count['records_rejected']} rejected"
        )
        yield (
            f"frames: {count['frames_in']} in = {count['frames']} stored + "
            f"{count['frames_rejected']} rejected + "
            f"{count['frames_of_rejected_records']} of rejected records"
        )
        for reason, number in self.card["reject_reasons"].items():
            yield f"  rejected {number}: {reason}"
        for split, size in splits.items():
            yield (
                f"{split}: {size['records']} examinations of {size['patients']} patients, "
                f"{size['frames']} frames ({size['negative']} negative, {size['single']} single, "
                f"{size['multi']} multi)"
            )
        state = "was already prepared" if self.already_done else "prepared"
        yield f"{state}: {self.out} (fingerprint {self.card['fingerprint']})"


def prepare(
    records: str | Path,
    out: str | Path,
    *,
    long_side: int = 512,
    quality: int = 92,
    splits: Sequence[float | int] = (80, 10, 10),
    records_per_shard: int = 64,
    workers: int | None = None,
    salt: bytes | None = None,
    progress: bool = True,
) -> Summary:
    """Prepares a records folder; run again it continues, or says that it is done.

    Args:
      records: folder with a manifest, or with one sub-folder an examination.
      out: folder for shards, index and card; `out`.private beside it takes what is secret.
      long_side: pixels to which a frame's longer side is reduced.
      quality: JPEG quality of the stored frames, 1 to 100.
      splits: shares of patients for training, validation and test.
      records_per_shard: examinations a shard; also the unit of resumption.
      workers: processes, all cores by default. The shards do not depend on it.
      salt: key of the id hashes; by default the one in `out`.private, or a new one.
      progress: whether to show progress on standard error.

    Raises UserError on bad input, on an `out` that is not ours or was made of other records or
    with other settings, and on a full disk; nothing that was there is overwritten.
    """
    settings = _checked(long_side, quality, splits, records_per_shard)
    folder = records_folder(records)
    out = Path(out).expanduser().absolute()
    if out.resolve().is_relative_to(folder) or folder.is_relative_to(out.resolve()):
        raise UserError(f"{out} and the records folder {folder} contain one another: choose --out")
    private = out.with_name(out.name + ".private")
    begun = _check_ours(out, private)
    salt = _salt(private, salt)
    plan = survey(folder, settings, salt)
    if begun:
        _check_same(plan, out, private)
        if (out / CARD_FILE).exists():
            card = read_card(out)
            shutil.rmtree(private / _PARTS, ignore_errors=True)
            return Summary(out, card, already_done=True)
    with full_disk_is_told(out):
        private_folder(private)
    with _only_one(private):
        parts = private / _PARTS
        with full_disk_is_told(out):
            out.mkdir(parents=True, exist_ok=True)
            private_folder(parts)
            write_whole(private / _SALT_FILE, salt.hex(), PRIVATE_FILE_MODE)
            write_whole(private / _PLAN_FILE, json.dumps(plan.stamp()), PRIVATE_FILE_MODE)
            _write_shards(plan, out, parts, salt, workers or _cores(), progress)
        return Summary(out, merge(plan, out, private, parts, salt), already_done=False)


def _checked(
    long_side: int, quality: int, splits: Sequence[float | int], records_per_shard: int
) -> Settings:
    if long_side < MIN_SIDE:
        raise UserError(f"--long_side={long_side} is too small: give at least {MIN_SIDE} pixels")
    if not 1 <= quality <= 100:
        raise UserError(f"--quality={quality} is no JPEG quality: give 1 to 100")
    if len(splits) != 3 or min(splits) < 0 or sum(splits) <= 0:
        shares = ",".join(map(str, splits))
        raise UserError(f"--splits={shares} are no three shares: give e.g. 80,10,10")
    if records_per_shard < 1:
        raise UserError(f"--records_per_shard={records_per_shard} is too small: give at least 1")
    train, validation, test = map(float, splits)
    return Settings(long_side, quality, (train, validation, test), records_per_shard)


def _check_ours(out: Path, private: Path) -> bool:
    """Whether a preparation was begun in `out`; UserError if something else is there."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file: pass --out=FOLDER")
    if not out.exists() or not any(out.iterdir()):
        return False
    if (private / _PLAN_FILE).exists():
        return True
    if (out / CARD_FILE).exists():
        raise UserError(
            f"{out} is a prepared data set whose private folder {private} is not there, so it "
            "cannot be told what it was made of: put it back, or choose another --out"
        )
    raise UserError(f"{out} is not empty and no prepared data set: choose another --out")


def _check_same(plan: Plan, out: Path, private: Path) -> None:
    """UserError if `out` was begun with other settings, or of other records."""
    begun = json.loads((private / _PLAN_FILE).read_text(encoding="utf-8"))
    wanted = plan.stamp()
    for key, value in wanted["settings"].items():
        if begun["settings"].get(key) != value:
            raise UserError(
                f"{out} was begun with {key}={begun['settings'].get(key)} and not {value}: use the "
                "same settings, or another --out"
            )
    if begun["source"] != wanted["source"]:
        raise UserError(
            f"{out} was begun from other records than {plan.folder} holds now: choose another --out"
        )


def _salt(private: Path, given: bytes | None) -> bytes:
    path = private / _SALT_FILE
    stored = read_salt(path) if path.exists() else None
    if stored and given and stored != given:
        raise UserError(f"the salt given is not the one in {path}: leave it out")
    return stored or given or new_salt()


@contextmanager
def _only_one(private: Path) -> Iterator[None]:
    """Holds the lock of a preparation; UserError if another process holds it."""
    descriptor = os.open(private / "lock", os.O_RDWR | os.O_CREAT, PRIVATE_FILE_MODE)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another process is preparing here ({private}): wait for it") from None
        yield
    finally:
        os.close(descriptor)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _write_shards(
    plan: Plan, out: Path, parts: Path, salt: bytes, workers: int, progress: bool
) -> None:
    """Writes the shards that are not finished yet."""
    todo, frames = [], 0
    for block, number in zip(plan.blocks, plan.frames_per_block, strict=True):
        if not _is_finished(block, out, parts):
            todo.append(block)
            frames += number
    kept = len(plan.blocks) - len(todo)
    shown = _Progress(frames, len(todo), kept, shown=progress)
    job = _Job(plan.folder, out, parts, plan.settings, salt)
    workers = min(workers, len(todo))
    if workers <= 1:
        for block in todo:
            job.write(block, shown.add)
            shown.shard_done()
    else:
        _write_in_processes(job, todo, workers, shown)
    shown.close()


def _is_finished(block: Block, out: Path, parts: Path) -> bool:
    """Whether the shard and its part are there and belong together."""
    shard, part = out / block.shard, parts / f"{block.shard}.npz"
    if not (shard.exists() and part.exists()):
        return False
    return shard.stat().st_size == load_part(part)[2]["bytes"]


@dataclass(frozen=True)
class _Job:
    """What every worker process needs to know."""

    folder: Path
    out: Path
    parts: Path
    settings: Settings
    salt: bytes

    def write(self, block: Block, tick: Tick) -> None:
        write_block(
            block, folder=self.folder, out=self.out, parts=self.parts, settings=self.settings,
            salt=self.salt, tick=tick,
        )  # fmt: skip


def _write_in_processes(job: _Job, todo: list[Block], workers: int, shown: _Progress) -> None:
    context = multiprocessing.get_context("spawn")
    done, stop = context.Value("q", 0), context.Event()
    pool = ProcessPoolExecutor(workers, context, _start_worker, (job, done, stop))
    try:
        pending = {pool.submit(_work, block) for block in todo}
        while pending:
            finished, pending = wait(pending, _TERMINAL_INTERVAL, FIRST_COMPLETED)
            for future in finished:
                future.result()
                shown.shard_done()
            shown.show(done.value)
    except BrokenProcessPool:
        raise UserError(
            "a worker process was killed, perhaps for want of memory: run the same command again, "
            "with fewer --workers (what is finished is kept)"
        ) from None
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


class _Stopped(Exception):
    """The main process gave up; an unfinished shard is not worth finishing."""


_write_in_worker: Callable[[Block], None]


def _start_worker(job: _Job, done: Any, stop: Any) -> None:
    """Readies a worker: it outlives neither an interrupt nor the main process."""
    global _write_in_worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()

    def tick(frames: int) -> None:
        with done.get_lock():
            done.value += frames
        if stop.is_set():
            raise _Stopped

    def write(block: Block) -> None:
        job.write(block, tick)

    _write_in_worker = write


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(block: Block) -> None:
    _write_in_worker(block)


class _Progress:
    """One line on standard error: frames, rate, time left."""

    def __init__(self, frames: int, shards: int, kept: int, *, shown: bool) -> None:
        self._total, self._shards, self._kept, self._shown = frames, shards, kept, shown
        self._frames = self._shards_done = 0
        self._on_terminal = sys.stderr.isatty()
        self._began = self._printed = time.monotonic()

    def add(self, frames: int) -> None:
        self.show(self._frames + frames)

    def shard_done(self) -> None:
        self._shards_done += 1

    def show(self, frames: int) -> None:
        self._frames = frames
        now = time.monotonic()
        interval = _TERMINAL_INTERVAL if self._on_terminal else _LOG_INTERVAL
        if self._shown and now - self._printed >= interval:
            self._printed = now
            self._print(now)

    def close(self) -> None:
        if self._shown:
            self._print(time.monotonic())
            if self._on_terminal:
                print(file=sys.stderr)

    def _print(self, now: float) -> None:
        rate = self._frames / max(now - self._began, 1e-9)
        left = f"{(self._total - self._frames) / rate:.0f} s left" if rate else "measuring"
        kept = f" ({self._kept} kept)" if self._kept else ""
        line = (
            f"prepare: {self._frames}/{self._total} frames, {self._shards_done}/{self._shards} "
            f"shards{kept}, {rate:.1f} frames/s, {left}"
        )
        start, end = ("\r\033[K", "") if self._on_terminal else ("", "\n")
        print(f"{start}{line}", end=end, file=sys.stderr, flush=True)
