"""How cost grows: with the batch, with devices, with frames.

`python launch/benchmark.py --suite=growth` takes, of stage 2 with a small model: seconds of a train
step against patients in the batch, and against fake CPU devices at one batch (they share the same
cores: flat is ideal); of the loader: seconds and memory of a scoring pass against frames; of the
index: memory against frames. Writes `growth.json` and `growth.png`.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from endoclip_jax.benchmarks import opening
from endoclip_jax.benchmarks.loader import drawn
from endoclip_jax.benchmarks.material import SIZES
from endoclip_jax.benchmarks.step import Work
from endoclip_jax.benchmarks.timing import Row, about, numbers, spread, take_turns, write_json
from endoclip_jax.data.loaders import scoring_batches
from endoclip_jax.models.clip import CLIP, CLIPConfig, initial_params
from endoclip_jax.shards.index import Index
from endoclip_jax.training.memory import keep_memory_of_steps
from endoclip_jax.training.metrics import StepMetrics
from endoclip_jax.training.optimizer import Schedule, make_optimizer
from endoclip_jax.training.sharding import data_mesh, replicate, shard_batch
from endoclip_jax.training.state import TrainState, make_update

_MOST_DEVICES = 8
_TEXT_LENGTH = 32
_FRAMES_A_PATIENT = 67
_SIDE = 32  # pixels of a scored frame


def main(argv: Sequence[str], out: Path) -> int:
    """Runs the suite; `out` is the default of `--out`. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="benchmark.py --suite=growth", description=__doc__)
    add = parser.add_argument
    add("--out", type=Path, default=out, help="folder of growth.json and growth.png")
    add("--size", choices=sorted(SIZES), default="tiny", help="of the model")
    add("--batches", default="8,16,32,64,128,256")
    add("--devices", default="1,2,4,8", help="fake CPU devices, at most 8")
    add("--batch", type=int, default=64, help="shared among the devices")
    add("--frames", default="500,1000,2000,4000,8000", help="of a scoring pass")
    add("--indexed", default="10000,100000,874000", help="frames of an opened index")
    add("--times", type=int, default=5)
    add("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", _MOST_DEVICES)
    keep_memory_of_steps()  # as a run does
    results = about("growth", size=options.size, seed=options.seed) | grow(
        SIZES[options.size].model,
        batches=numbers(options.batches, "--batches"),
        devices=numbers(options.devices, "--devices"),
        batch=options.batch,
        frames=numbers(options.frames, "--frames"),
        indexed=numbers(options.indexed, "--indexed"),
        times=options.times,
        seed=options.seed,
    )
    write_json(options.out / "growth.json", results)
    draw(results, options.out / "growth.png")
    print(f"written to {options.out / 'growth.json'} and growth.png")
    return 0


def grow(
    config: CLIPConfig,
    *,
    batches: Sequence[int],
    devices: Sequence[int],
    batch: int,
    frames: Sequence[int],
    indexed: Sequence[int],
    times: int,
    seed: int,
) -> dict[str, list[Row]]:
    """Rows of every growth, each with what it grew by."""
    with tempfile.TemporaryDirectory() as scratch:  # before a step's memory would hide its own
        index = drawn(Path(scratch), 16, 64, seed)
        passes = [loading(index, count) for count in frames]
    grown: dict[str, list[Row]] = {
        "pass_by_frames": passes,
        "step_by_batch": [{"batch": rows, **steps(config, rows, 1, times)} for rows in batches],
        "step_by_devices": [
            {"devices": count, **steps(config, batch, count, times)} for count in devices
        ],
        "open_by_frames": [],
    }
    for count in indexed:
        with tempfile.TemporaryDirectory() as folder:
            opening.write_index(Path(folder), max(1, count // _FRAMES_A_PATIENT), count, seed)
            grown["open_by_frames"].append(opening.measure(Path(folder), times))
    return grown


def steps(config: CLIPConfig, rows: int, devices: int, times: int) -> Row:
    """Spread of the seconds of a train step of stage 2 over so many devices."""
    length = min(_TEXT_LENGTH, config.text.context_length)
    work = Work.drawn("stage2", config, rows, length, "float32", 0)
    mesh = data_mesh(jax.devices()[:devices])
    optimizer = make_optimizer(Schedule(100, 10, 5e-5), 0.2)
    update = make_update(work.loss(), optimizer)
    params = {"clip": initial_params(CLIP(work.config), 0)}
    state = replicate(TrainState.create(params, optimizer), mesh)
    batch = shard_batch(work.batch, mesh)
    carried: list[Any] = [state, replicate(StepMetrics.empty(), mesh)]

    def step() -> None:
        carried[0], carried[1], _ = update(carried[0], carried[1], batch)
        jax.block_until_ready(carried)

    turns, _ = take_turns({"step": step}, times, warmup=2)
    return {"wall": spread(turns["step"][:, 0]), "cpu": spread(turns["step"][:, 1])}


def loading(index: Index, frames: int) -> Row:
    """Seconds of one pass over so many frames, and memory after it."""
    chosen = np.resize(np.arange(len(index.frames)), frames)
    batches = scoring_batches(index, chosen, batch=64, image_size=_SIDE)

    def work() -> None:
        assert sum(len(batch["frame"]) for batch in batches) >= frames

    turns, _ = take_turns({"pass": work}, 1, warmup=0)
    gc.collect()
    return {
        "frames": frames,
        "wall": float(turns["pass"][0, 0]),
        "cpu": float(turns["pass"][0, 1]),
        "resident": _resident(),
    }


def _resident() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


_CPU = "processor seconds of a "
_PLOTS = (  # rows, what stands across, what stands up
    ("step_by_batch", "batch", "patients in the batch", _CPU + "step", lambda row: _cpu(row)),
    ("step_by_devices", "devices", "fake devices", _CPU + "step", lambda row: _cpu(row)),
    ("pass_by_frames", "frames", "frames", _CPU + "loader's pass", lambda row: row["cpu"]),
    ("pass_by_frames", "frames", "frames", "resident after it (MB)",
     lambda row: row["resident"] / 1e6),
    ("open_by_frames", "frames", "frames in the index", "seconds to open",
     lambda row: row["open_seconds"]["median"]),
    ("open_by_frames", "frames", "frames in the index", "resident memory (MB)",
     lambda row: row["memory_used"] / 1e6),
)  # fmt: skip


def _cpu(row: Row) -> float:
    return float(row["cpu"]["median"])


def draw(results: Mapping[str, Any], path: Path) -> None:
    """Six plots, each from its rows."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, grid = plt.subplots(2, 3, figsize=(11, 6), layout="constrained")
    for axes, (name, key, across, up, height) in zip(grid.flat, _PLOTS, strict=True):
        rows = results[name]
        heights = [height(row) for row in rows]
        axes.plot([row[key] for row in rows], heights, marker="o")
        axes.set_xlabel(across)
        axes.set_ylabel(up)
        axes.set_ylim(0, 1.1 * max(heights))
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
    plt.close(figure)
