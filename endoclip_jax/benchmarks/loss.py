"""Dense and streaming loss side by side: memory of the compiled programs, and time of both.

`python -m endoclip_jax.benchmarks.loss --out=DIR` compiles value and gradients for 1k to 256k
pairs on eight fake CPU devices (nothing that large is executed) and writes `loss.json` and
`loss.png`; `--time=1024,2048,4096` also executes both, in turns, and compares them turn by turn.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from endoclip_jax.errors import UserError
from endoclip_jax.objectives.dense import ContrastiveLoss, contrastive_loss
from endoclip_jax.objectives.memory import predict_temporaries
from endoclip_jax.objectives.soft_targets import TARGETS, TargetNorm, parse_target_norm
from endoclip_jax.objectives.streaming import streaming_loss
from endoclip_jax.training.sharding import data_mesh, over_data, replicated

SCHEMA = 1
DIM, ATTRIBUTES = 512, 40
SIZES = tuple(2**power for power in range(10, 19))
_LOGIT_SCALE = float(np.log(1 / 0.07))
Row = dict[str, Any]


def main(argv: Sequence[str], out: Path) -> int:
    """Runs the suite; `out` is the default of `--out`. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="loss", description=__doc__)
    parser.add_argument("--out", type=Path, default=out, help="folder of loss.json and loss.png")
    parser.add_argument("--devices", type=int, default=8, help="fake CPU devices; 0: the real ones")
    parser.add_argument("--memory", default=_listed(SIZES), help="batches to compile for")
    parser.add_argument("--time", default="", help="batches to execute both at")
    parser.add_argument("--pairs", type=int, default=5, help="turns of dense, then streaming")
    parser.add_argument(
        "--targets", default="l1,onehot,power(4)", help="onehot, multi_positive, or a target norm"
    )
    options = parser.parse_args(argv)
    if options.devices:
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", options.devices)
    targets = options.targets.split(",")
    results = run(
        data_mesh(), _numbers(options.memory), _numbers(options.time), targets, options.pairs
    )
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "loss.json").write_text(json.dumps(results, indent=1) + "\n")
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
    """Everything that was measured, as it goes to `loss.json`; each row is said when it is there.

    Memory in bytes a device, times in seconds; a ratio is streaming over dense.
    """
    devices = mesh.size
    results: Row = {
        "schema": SCHEMA,
        "dim": DIM,
        "attributes": ATTRIBUTES,
        "devices": devices,
        "hardware": {
            "platform": jax.default_backend(),
            "device": jax.devices()[0].device_kind,
            "cores": os.cpu_count(),
            "jax": jax.__version__,
        },
        "memory": [],
        "time": [],
    }
    implementations = {"dense": contrastive_loss, "streaming": streaming_loss(mesh)}
    for target in targets:
        for batch in memory:
            predicted = predict_temporaries(batch, DIM, ATTRIBUTES, devices)
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
            row = {"target": target, "batch": batch, **compare(mesh, batch, target, pairs)}
            results["time"].append(row)
            wall, cpu = row["wall"], row["cpu"]
            say(
                f"{target:>10} {batch:>7} pairs, streaming / dense in {pairs} turns: wall clock "
                f"{wall['ratio']:.2f} ({wall['low']:.2f} to {wall['high']:.2f}), processor "
                f"{cpu['ratio']:.2f} ({cpu['low']:.2f} to {cpu['high']:.2f}); dense "
                f"{wall['dense']:.3f} s"
            )
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
    """Both executed in turns: medians in seconds, median and extremes of the turns' ratios.

    By the clock, and by the processor time of all threads, which says more on a CPU that others
    use too. The first turn, in which both are compiled, is not counted.
    """
    split, everywhere = over_data(mesh), replicated(mesh)
    arrays = [jax.device_put(x, split if x.shape else everywhere) for x in _batch(batch)]
    steps = {
        "dense": _step(contrastive_loss, mesh, target),
        "streaming": _step(streaming_loss(mesh), mesh, target),
    }
    seconds: dict[str, list[np.ndarray]] = {name: [] for name in steps}
    for _ in range(pairs + 1):
        for name, step in steps.items():
            began = np.asarray((time.perf_counter(), time.process_time()))
            jax.block_until_ready(step(*arrays))
            seconds[name].append(np.asarray((time.perf_counter(), time.process_time())) - began)
    dense, streaming = (np.asarray(seconds[name][1:]) for name in ("dense", "streaming"))
    row: Row = {"turns": pairs}
    for column, clock in enumerate(("wall", "cpu")):
        ratios = streaming[:, column] / dense[:, column]
        row[clock] = {
            "dense": float(np.median(dense[:, column])),
            "streaming": float(np.median(streaming[:, column])),
            "ratio": float(np.median(ratios)),
            "low": float(ratios.min()),
            "high": float(ratios.max()),
        }
    return row


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


def _listed(sizes: Sequence[int]) -> str:
    return ",".join(map(str, sizes))


def _numbers(text: str) -> list[int]:
    try:
        return [int(number) for number in text.split(",") if number]
    except ValueError:
        raise UserError(f"{text!r} is no list of batches: give e.g. 1024,4096") from None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], Path("runs") / "benchmarks"))
