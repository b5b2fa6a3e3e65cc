"""Writes shards on all cores; a shard is the unit of work, of resumption and of an array job."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from endoclip_jax.errors import UserError
from endoclip_jax.memory import keep_freed_memory
from endoclip_jax.shards.parts import is_of_this_schema, load_meta
from endoclip_jax.shards.progress import TERMINAL_INTERVAL, Progress
from endoclip_jax.shards.writer import Block, Readings, Settings, Tick, write_block

BlockReader = Callable[[Block], Readings]

one_thread_a_product = partial(threadpool_limits, 1, user_api="blas")
"""What the products of a frame's preparation run under: matrices so small that the threads of
NumPy's library would do nothing but wait for each other, on cores that other workers need."""

keep_memory_of_pictures = partial(keep_freed_memory, up_to=64 << 20)
"""Has a frame's memory used again for the next: a tenth of the time of a frame of 1280 pixels."""

_AHEAD = 2  # shards a worker that are handed out, so that memory does not grow with their number


@dataclass(frozen=True)
class Job:
    """What every worker process needs to know."""

    folder: Path
    out: Path
    parts: Path
    settings: Settings
    salt: bytes
    delivery: int

    def write(self, block: Block, readings: Readings | None, tick: Tick) -> None:
        """Writes one shard and its part."""
        write_block(
            block, folder=self.folder, out=self.out, parts=self.parts, settings=self.settings,
            salt=self.salt, delivery=self.delivery, readings=readings, tick=tick,
        )  # fmt: skip


def write_shards(
    job: Job, blocks: Sequence[Block], workers: int, read: BlockReader | None, *, progress: bool
) -> None:
    """Writes those of the shards that are not finished yet.

    `read` reads a shard's reports in this process while workers are at the frames of those before;
    without it the workers read them, by rules.
    """
    todo = [block for block in blocks if not is_finished(block, job.out, job.parts)]
    frames = sum(block.frames for block in todo)
    shown = Progress(frames, len(todo), len(blocks) - len(todo), shown=progress)
    workers = min(workers, len(todo))
    if workers <= 1:
        keep_memory_of_pictures()
        with one_thread_a_product():
            for block in todo:
                job.write(block, read(block) if read else None, shown.add)
                shown.shard_done()
    else:
        _write_in_processes(job, todo, workers, read, shown)
    shown.close()


def is_finished(block: Block, out: Path, parts: Path) -> bool:
    """Whether the shard and its part are there and belong together."""
    shard, part = out / block.shard, parts / f"{block.name}.npz"
    if not (shard.exists() and part.exists()):
        return False
    return shard.stat().st_size == load_meta(part)["bytes"] and is_of_this_schema(part)


def _write_in_processes(
    job: Job, todo: list[Block], workers: int, read: BlockReader | None, shown: Progress
) -> None:
    context = multiprocessing.get_context("spawn")
    done, stop = context.Value("q", 0), context.Event()
    pool = ProcessPoolExecutor(workers, context, _start_worker, (job, done, stop))
    try:
        pending: set[Future[None]] = set()
        waiting = iter(todo)
        while True:
            for block in islice(waiting, _AHEAD * workers - len(pending)):
                pending.add(pool.submit(_work, block, read(block) if read else None))
            if not pending:
                break
            finished, pending = wait(pending, TERMINAL_INTERVAL, FIRST_COMPLETED)
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


_write_in_worker: Callable[[Block, Readings | None], None]


def _start_worker(job: Job, done: Any, stop: Any) -> None:
    """Readies a worker: it outlives neither an interrupt nor the main process."""
    global _write_in_worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    one_thread_a_product()
    keep_memory_of_pictures()
    threading.Thread(target=_exit_with_parent, daemon=True).start()

    def tick(frames: int) -> None:
        with done.get_lock():
            done.value += frames
        if stop.is_set():
            raise _Stopped

    def write(block: Block, readings: Readings | None) -> None:
        job.write(block, readings, tick)

    _write_in_worker = write


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(block: Block, readings: Readings | None) -> None:
    _write_in_worker(block, readings)
