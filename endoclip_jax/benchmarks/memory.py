"""Memory of a whole train step by accumulation, rematerialisation and fsdp: compiled, not executed.

`python launch/benchmark.py --suite=memory` compiles the update of stage 2 (both towers, dense loss,
AdamW) for each way to save memory and writes what XLA plans for a device to `memory.json`. Each way
is seen alone: parts and remat on one device, fsdp on all of them with the batch in one piece.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from endoclip_jax.benchmarks.material import SIZES
from endoclip_jax.benchmarks.timing import about, write_json
from endoclip_jax.errors import UserError
from endoclip_jax.models.clip import CLIP, CLIPConfig
from endoclip_jax.models.layers import REMAT
from endoclip_jax.objectives.dense import contrastive_loss
from endoclip_jax.records.attributes import NUM_BITS
from endoclip_jax.stages.stage import at_once, encode_images, encode_texts
from endoclip_jax.training.accumulation import in_parts
from endoclip_jax.training.metrics import StepMetrics
from endoclip_jax.training.optimizer import Schedule, make_optimizer
from endoclip_jax.training.sharding import make_mesh, over_data, replicated, shardings
from endoclip_jax.training.state import Loss, TrainState, make_update

# LLVM works on what is planned already, and takes most of the time on a CPU.
_QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
Row = dict[str, Any]


class Way(NamedTuple):
    """One way to lay out and work off a step.

    Attributes:
      devices: over which the batch is split.
      fsdp: over how many of them parameters and optimizer state are split as well.
      accumulate: parts of the batch.
      remat: what the backward pass computes again.
    """

    devices: int
    fsdp: int
    accumulate: int
    remat: str


def main(argv: Sequence[str], out: Path) -> int:
    """Runs the suite; `out` is the default of `--out`. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="memory", description=__doc__)
    parser.add_argument("--out", type=Path, default=out, help="folder of memory.json")
    parser.add_argument("--size", choices=sorted(SIZES), default="vit-b32")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--accumulate", default="1,2,4,8", help="parts of the batch")
    parser.add_argument("--remat", default="none,full", help=f"of {', '.join(REMAT)}")
    parser.add_argument("--fsdp", default="1,8", help="devices that share the state; empty: none")
    parser.add_argument("--devices", type=int, default=8, help="fake CPU devices; 0: the real ones")
    options = parser.parse_args(argv)
    if options.devices:
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", options.devices)
    remat = options.remat.split(",")
    if not set(remat) <= set(REMAT):
        raise UserError(f"--remat={options.remat} is no list of {', '.join(REMAT)}")
    accumulate, fsdp = _numbers(options.accumulate), _numbers(options.fsdp)
    everything = ways(accumulate, remat, fsdp, jax.device_count())
    config = SIZES[options.size].model
    head = about("memory", size=options.size)
    results = run(config, options.batch, options.dtype, everything)
    path = options.out / "memory.json"
    write_json(path, head | results)
    print(f"\n{table(results)}\n\nwritten to {path}")
    return 0


def ways(
    accumulate: Sequence[int], remat: Sequence[str], fsdp: Sequence[int], devices: int
) -> list[Way]:
    """Every policy with every number of parts on one device, then every fsdp on all devices."""
    alone = [Way(1, 1, parts, policy) for policy in remat for parts in accumulate]
    return alone + [Way(devices, share, 1, "none") for share in fsdp]


def run(
    config: CLIPConfig,
    batch: int,
    dtype: str,
    everything: Sequence[Way],
    say: Callable[[str], None] = print,
) -> Row:
    """As it goes to `memory.json`: for each way the bytes that `planned` finds."""
    rows = []
    for number, way in enumerate(everything, start=1):
        say(f"compiling {number} of {len(everything)}: {way}")
        rows.append({**way._asdict(), **planned(config, batch, dtype, way)})
    return {"batch": batch, "dtype": dtype, "rows": rows}


def table(results: Row) -> str:
    """The rows as Markdown, in megabytes a device."""
    lines = [
        "| devices | fsdp | parts | remat | temporaries, MB | parameters and optimizer state, MB |",
        "|---|---|---|---|---|---|",
    ]
    for row in results["rows"]:
        cells = [row[name] for name in ("devices", "fsdp", "accumulate", "remat")]
        cells += [f"{row[name] / 1e6:,.1f}" for name in ("temporaries", "state")]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def planned(config: CLIPConfig, batch: int, dtype: str, way: Way) -> Row:
    """Bytes a device that XLA plans for one update; nothing is allocated.

    `temporaries` come on top of `arguments`, which are the `state` (parameters and the
    optimizer's) and the device's part of the batch.
    """
    mesh = make_mesh({"data": -1, "fsdp": way.fsdp}, jax.devices()[: way.devices])
    model = CLIP(config, dtype=jnp.dtype(dtype).type, remat=way.remat)
    size, length = config.vision.image_size, config.text.context_length
    rows: dict[str, tuple[tuple[int, ...], Any]] = {
        "image": ((batch, size, size, 3), jnp.uint8),
        "ids": ((batch, length), jnp.int32),
        "bits": ((batch, NUM_BITS), jnp.float32),
        "valid": ((batch,), bool),
    }
    optimizer = make_optimizer(Schedule(100, 10, 5e-5), 0.2)

    def initial() -> TrainState:
        pixels, ids = jnp.zeros((1, size, size, 3)), jnp.zeros((1, length), jnp.int32)
        clip = dict(model.init(jax.random.key(0), pixels, ids)["params"])
        return TrainState.create({"clip": clip}, optimizer)

    everywhere = replicated(mesh)
    state = jax.eval_shape(initial)
    layout = shardings(state, mesh)
    arguments = (
        jax.tree.map(_placed, state, layout),
        jax.tree.map(lambda x: _placed(x, everywhere), jax.eval_shape(StepMetrics.empty)),
        {name: jax.ShapeDtypeStruct(*row, sharding=over_data(mesh)) for name, row in rows.items()},
    )
    update: Any = make_update(
        _loss(model, way.accumulate), optimizer, (layout, everywhere, everywhere)
    )
    quick = _QUICK if jax.default_backend() == "cpu" else None
    plan = update.lower(*arguments).compile(quick).memory_analysis()
    return {
        "temporaries": int(plan.temp_size_in_bytes),
        "arguments": int(plan.argument_size_in_bytes),
        "state": sum(
            math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
            for leaf in jax.tree.leaves(arguments[0])
        ),
    }


def _placed(leaf: Any, sharding: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _numbers(text: str) -> list[int]:
    try:
        return [int(number) for number in text.split(",") if number]
    except ValueError:
        raise UserError(f"{text!r} is no list of numbers: give e.g. 1,8") from None


def _loss(model: CLIP, parts: int) -> Loss:
    """Stage 2's, without its data."""

    def embed(params: Any, batch: Any) -> Any:
        images = encode_images(model, params, batch["image"])
        return images, encode_texts(model, params, batch["ids"])

    def contrast(params: Any, features: Any, batch: Any) -> Any:
        v, t = features
        bits = batch["bits"]
        return contrastive_loss(
            v, t, params["clip"]["logit_scale"], bits, bits,
            target="morphology", target_norm="l1", valid=batch["valid"],
        )  # fmt: skip

    combine = at_once if parts == 1 else partial(in_parts, parts=parts)
    return combine(embed, contrast)
