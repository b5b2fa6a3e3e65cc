"""Dense and streaming loss side by side: memory of the compiled programs, and time of both.

`python launch/benchmark.py --suite=loss` compiles value and gradients for 1k to 256k pairs on eight
fake CPU devices (nothing that large is executed) and writes `loss.json` and `loss.png`.
`--time=1024,2048,4096` also executes both, in turns, and `--steps=16` whole train steps of stage 2
with one and with the other (`--devices=1`). A ratio is streaming's time over dense's in the same
turn: below 1, streaming is faster.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from endoclip_jax.benchmarks.material import SIZES as MODELS
from endoclip_jax.benchmarks.step import Work, ours
from endoclip_jax.benchmarks.timing import (
    Row,
    about,
    numbers,
    ratio_of,
    seconds_of,
    take_turns,
    write_json,
)
from endoclip_jax.errors import UserError
from endoclip_jax.models.clip import CLIP, initial_params
from endoclip_jax.objectives.dense import ContrastiveLoss, contrastive_loss
from endoclip_jax.objectives.memory import predict_temporaries
from endoclip_jax.objectives.soft_targets import TARGETS, TargetNorm, parse_target_norm
from endoclip_jax.objectives.streaming import streaming_loss
from endoclip_jax.training.optimizer import Schedule
from endoclip_jax.training.sharding import data_mesh, over_data, replicated

DIM, ATTRIBUTES = 512, 40
BATCHES = tuple(2**power for power in range(10, 19))
_LOGIT_SCALE = float(np.log(1 / 0.07))
_SCHEDULE = Schedule(100, 1, 5e-5)


def main(argv: Sequence[str], out: Path) -> int:
    """Runs the suite; `out` is the default of `--out`. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="benchmark.py --suite=loss", description=__doc__)
    add = parser.add_argument
    add("--out", type=Path, default=out, help="folder of loss.json and loss.png")
    add("--devices", type=int, default=8, help="fake CPU devices; 0: the real ones")
    add("--memory", default=",".join(map(str, BATCHES)), help="batches to compile for")
    add("--time", default="", help="batches to execute both at")
    add("--steps", default="", help="batches to take whole train steps of stage 2 at")
    add("--size", choices=sorted(MODELS), default="vit-b32", help="of those steps' model")
    add("--pairs", type=int, default=5, help="turns of dense, then streaming, that count")
    add("--targets", default="l1,onehot,power(4)", help="onehot, multi_positive, or a target norm")
    options = parser.parse_args(argv)
    if options.devices:
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", options.devices)
    memory, timed, steps = (
        numbers(getattr(options, name), f"--{name}") if getattr(options, name) else []
        for name in ("memory", "time", "steps")
    )
    mesh = data_mesh()
    if steps and mesh.size > 1:
        raise UserError("--steps takes whole train steps on one device: give --devices=1 with it")
    results = about("loss", dim=DIM, attributes=ATTRIBUTES, devices=mesh.size, size=options.size)
    results |= run(mesh, memory, timed, options.targets.split(","), options.pairs)
    results["steps"] = []
    for batch in steps:
        row = compare_steps(options.size, mesh, batch, options.pairs)
        results["steps"].append(row)
        print(_line("train step, l1", row, options.pairs), flush=True)
    write_json(options.out / "loss.json", results)
    if results["memory"]:
        draw(results, options.out / "loss.png")
    print(f"written to {options.out / 'loss.json'}")
    return 0


def run(
    mesh: Mesh,
    memory: Sequence[int],
    timed: Sequence[int],
    targets: Sequence[str],
    pairs: int,
    say: Callable[[str], None] = print,
) -> Row:
    """Memory and time of the loss alone, as they go to `loss.json`; each row is said when there.

    Memory in bytes a device, times in seconds; a ratio is streaming over dense.
    """
    results: Row = {"memory": [], "time": []}
    implementations = {"dense": contrastive_loss, "streaming": streaming_loss(mesh)}
    for target in targets:
        for batch in memory:
            predicted = predict_temporaries(batch, DIM, ATTRIBUTES, mesh.size)
            for name, loss in implementations.items():
                row = {
                    "implementation": name,
                    "target": target,
                    "batch": batch,
                    "temporaries": temporaries(loss, mesh, batch, target),
                    "predicted": getattr(predicted, name),
                }
                results["memory"].append(row)
                say(
                    f"{target:>10} {batch:>7} pairs, {name:<9} {row['temporaries'] / 1e6:>12,.1f} "
                    f"MB of temporaries a device (predicted {row['predicted'] / 1e6:,.1f})"
                )
        for batch in timed:
            row = {"target": target, **compare(mesh, batch, target, pairs)}
            results["time"].append(row)
            say(_line(f"{target:>10}", row, pairs))
    return results


def temporaries(loss: ContrastiveLoss, mesh: Mesh, batch: int, target: str) -> int:
    """Bytes of temporaries a device that XLA plans for value and gradients; nothing is executed."""
    split, everywhere = over_data(mesh), replicated(mesh)
    shapes = [
        jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=split if x.shape else everywhere)
        for x in jax.eval_shape(lambda: _batch(batch))
    ]
    analysis = _step(loss, mesh, target).lower(*shapes).compile().memory_analysis()
    return int(analysis.temp_size_in_bytes)


def compare(mesh: Mesh, batch: int, target: str, pairs: int) -> Row:
    """Value and gradients of both, executed in turns; compiled in a turn that does not count."""
    split, everywhere = over_data(mesh), replicated(mesh)
    arrays = [jax.device_put(x, split if x.shape else everywhere) for x in _batch(batch)]

    def side(loss: ContrastiveLoss) -> Callable[[], object]:
        step = _step(loss, mesh, target)
        return lambda: jax.block_until_ready(step(*arrays))

    return _in_turns(batch, side(contrastive_loss), side(streaming_loss(mesh)), pairs)


def compare_steps(size: str, mesh: Mesh, batch: int, pairs: int) -> Row:
    """Whole train steps of stage 2, float32, whose losses differ in nothing but implementation."""
    config = MODELS[size].model
    work = Work.drawn("stage2", config, batch, config.text.context_length, "float32", seed=0)
    params = {"clip": initial_params(CLIP(config), 0)}
    streaming = replace(work, contrastive=streaming_loss(mesh))
    dense, streamed = (ours(one, params, _SCHEDULE) for one in (work, streaming))
    row = _in_turns(batch, dense, streamed, pairs)
    return {**row, "losses": {"dense": dense.losses, "streaming": streamed.losses}}


def _in_turns(
    batch: int, dense: Callable[[], object], streaming: Callable[[], object], pairs: int
) -> Row:
    turns, _ = take_turns({"dense": dense, "streaming": streaming}, pairs)
    return {
        "batch": batch,
        **{name: seconds_of(taken) for name, taken in turns.items()},
        "ratio": ratio_of(turns["streaming"], turns["dense"]),
    }


def _line(what: str, row: Row, pairs: int) -> str:
    wall, cpu = row["ratio"]["wall"], row["ratio"]["cpu"]
    return (
        f"{what} {row['batch']:>7} pairs, streaming / dense in {pairs} turns: wall clock "
        f"{wall['median']:.3f} ({wall['low']:.3f} to {wall['high']:.3f}), processor "
        f"{cpu['median']:.3f} ({cpu['low']:.3f} to {cpu['high']:.3f}); dense "
        f"{row['dense']['wall']['median']:.3f} s"
    )


def draw(results: Mapping[str, Any], path: Path) -> None:
    """Temporaries against batch, both axes logarithmic, for the first of the targets."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    target = results["memory"][0]["target"]
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for name, marker in (("dense", "s"), ("streaming", "o")):
        rows = [
            row
            for row in results["memory"]
            if (row["target"], row["implementation"]) == (target, name)
        ]
        batches = [row["batch"] for row in rows]
        (line,) = axes.plot(
            batches, [row["temporaries"] / 1e9 for row in rows], marker=marker, label=name
        )
        axes.plot(
            batches, [row["predicted"] / 1e9 for row in rows],
            linestyle=":", color=line.get_color(), label=f"{name}, predicted",
        )  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel("pairs in the global batch")
    axes.set_ylabel("temporaries a device (GB)")
    axes.set_title(f"Loss and gradients, target {target}, {results['devices']} devices, D = {DIM}")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _step(loss: ContrastiveLoss, mesh: Mesh, target: str) -> Any:
    """Jitted value and gradients by both towers and the temperature, laid out as the batch is."""
    name, norm = _parsed(target)

    def of_batch(v: Any, t: Any, scale: Any, a_v: Any, a_t: Any, valid: Any) -> Any:
        return loss(v, t, scale, a_v, a_t, target=name, target_norm=norm, valid=valid)

    split, everywhere = over_data(mesh), replicated(mesh)
    return jax.jit(
        jax.value_and_grad(of_batch, argnums=(0, 1, 2), has_aux=True),
        out_shardings=(everywhere, (split, split, everywhere)),
    )


def _parsed(target: str) -> tuple[str, TargetNorm]:
    if target in TARGETS:
        return target, "l1"
    return "morphology", parse_target_norm(target)


def _batch(size: int) -> tuple[jax.Array, ...]:
    """Unit embeddings, the temperature, attributes of which a fifth are set, all rows valid."""
    keys = jax.random.split(jax.random.key(0), 3)
    v, t = (jax.random.normal(key, (size, DIM)) for key in keys[:2])
    v, t = (x / jnp.linalg.norm(x, axis=1, keepdims=True) for x in (v, t))
    attributes = (jax.random.uniform(keys[2], (size, ATTRIBUTES)) < 0.2).astype(jnp.float32)
    valid = jnp.ones(size, bool)
    return v, t, jnp.float32(_LOGIT_SCALE), attributes, attributes, valid
