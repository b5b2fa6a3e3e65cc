"""Times of programs that do the same work, taken in turns, and how a suite writes them down.

A machine that others use too, or whose clock changes, meets all programs of a turn alike: what is
reported is the ratio within a turn, its median and quartiles over the turns. Two clocks: the
wall's, and the processor time of all threads of this process, which says more in company.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from endoclip_jax.errors import UserError
from endoclip_jax.evaluation.results import current_commit, describe_hardware
from endoclip_jax.files import replace_file
from endoclip_jax.training.memory import keep_memory_of_steps

SCHEMA = 1
CLOCKS = ("wall", "cpu")
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "grain", "numpy", "pillow", "simplejpeg", "torch",
             "transformers")  # fmt: skip

Turns = dict[str, np.ndarray]
Row = dict[str, Any]


def take_turns(
    sides: Mapping[str, Callable[[], object]], pairs: int, warmup: int = 1
) -> tuple[Turns, dict[str, float]]:
    """Calls each side once a turn, A B A B; `[pairs, 2]` seconds by `CLOCKS` for each side.

    A call has to end only when its work is done. The first `warmup` turns, in which programs are
    compiled and memory is taken, are not among them; their wall seconds are the second result.
    """
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for _ in range(warmup + pairs):
        for name, call in sides.items():
            wall, cpu = time.perf_counter(), time.process_time()
            call()
            taken[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    warming = {name: sum(wall for wall, _ in rows[:warmup]) for name, rows in taken.items()}
    return {name: np.asarray(rows[warmup:]) for name, rows in taken.items()}, warming


def spread(values: Sequence[float] | np.ndarray) -> dict[str, float]:
    """Median and quartiles."""
    low, median, high = np.percentile(np.asarray(values, np.float64), [25, 50, 75])
    return {"median": float(median), "low": float(low), "high": float(high)}


def seconds_of(turns: np.ndarray) -> Row:
    """What is kept of one side: spread and every turn, by each clock."""
    return {
        clock: {**spread(turns[:, column]), "turns": [float(x) for x in turns[:, column]]}
        for column, clock in enumerate(CLOCKS)
    }


def ratio_of(slower: np.ndarray, faster: np.ndarray) -> Row:
    """Spread of `slower / faster` turn by turn, by each clock: above 1, the second is faster."""
    return {
        clock: spread(slower[:, column] / faster[:, column]) for column, clock in enumerate(CLOCKS)
    }


def about(suite: str, **more: Any) -> Row:
    """What stands at the head of a suite's JSON: machine, load, versions, commit, command."""
    return {
        "schema": SCHEMA,
        "suite": suite,
        "command": _command(),
        "commit": current_commit(),
        "hardware": describe_hardware(),
        "python": platform.python_version(),
        "cores": usable_cores(),
        "load_at_start": round(os.getloadavg()[0], 2),
        "versions": _versions(),
        **more,
    }


def usable_cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a suite's results, whole or not at all."""
    replace_file(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def numbers(text: str, what: str) -> list[int]:
    """`16,32` as a list of positive integers; `UserError` for anything else."""
    try:
        found = [int(number) for number in text.split(",") if number]
    except ValueError:
        found = []
    if not found or min(found) < 1:
        raise UserError(f"{what} is {text!r}: give positive numbers, such as 16,32")
    return found


def choose_device(device: str) -> None:
    """Has JAX compute on `cpu` or `gpu`, its memory kept; has to come before anything computes.

    Raises:
      UserError: where there is no such device.
    """
    import jax

    jax.config.update("jax_platforms", {"cpu": "cpu", "gpu": "cuda"}[device])
    try:
        keep_memory_of_steps()  # as a run does; a peer's memory is that of the same process
        jax.devices()
    except RuntimeError as error:
        raise UserError(
            f"--device={device}: JAX finds none here ({str(error).splitlines()[0]}); "
            "a GPU needs pip install 'jax[cuda13]'"
        ) from None


def _command() -> str:
    """The command line without `--out`: where its numbers went is nobody's business."""
    words = iter(sys.orig_argv[1:])
    kept = ["python"]
    for word in words:
        if word == "--out":
            next(words, None)
        elif not word.startswith("--out="):
            kept.append(word)
    return shlex.join(kept)


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
