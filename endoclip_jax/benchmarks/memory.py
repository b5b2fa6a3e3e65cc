"""Memory of a whole train step by accumulation and rematerialisation, compiled, not executed.

`python launch/benchmark.py --suite=memory` compiles the update of stage 2 (both towers, dense loss,
AdamW) for each way to save memory and writes what XLA plans for temporaries to `memory.json`.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from endoclip_jax.benchmarks.material import SIZES
from endoclip_jax.models.clip import CLIP, CLIPConfig
from endoclip_jax.models.layers import REMAT
from endoclip_jax.objectives.dense import contrastive_loss
from endoclip_jax.records.attributes import NUM_BITS
from endoclip_jax.stages.stage import at_once, encode_images, encode_texts
from endoclip_jax.training.accumulation import in_parts
from endoclip_jax.training.metrics import StepMetrics
from endoclip_jax.training.optimizer import Schedule, make_optimizer
from endoclip_jax.training.state import Loss, TrainState, make_update

SCHEMA = 1
Row = dict[str, Any]


def main(argv: Sequence[str], out: Path) -> int:
    """Runs the suite; `out` is the default of `--out`. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="memory", description=__doc__)
    parser.add_argument("--out", type=Path, default=out, help="folder of memory.json")
    parser.add_argument("--size", choices=sorted(SIZES), default="vit-b32")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--accumulate", default="1,2,4,8", help="parts of the batch")
    parser.add_argument("--remat", default="none,full", help=f"of {', '.join(REMAT)}")
    options = parser.parse_args(argv)
    results = run(
        SIZES[options.size].model,
        options.batch,
        options.dtype,
        [int(parts) for parts in options.accumulate.split(",")],
        options.remat.split(","),
    )
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "memory.json"
    path.write_text(json.dumps({"size": options.size, **results}, indent=1) + "\n")
    print(f"written to {path}")
    return 0


def run(
    config: CLIPConfig,
    batch: int,
    dtype: str,
    accumulate: Sequence[int],
    remat: Sequence[str],
    say: Callable[[str], None] = print,
) -> Row:
    """As it goes to `memory.json`: bytes of temporaries, beside arguments (state and batch)."""
    rows = []
    for policy in remat:
        for parts in accumulate:
            row = {
                "accumulate": parts,
                "remat": policy,
                **planned(config, batch, dtype, parts, policy),
            }
            rows.append(row)
            say(
                f"accumulate {parts}, remat {policy}: {row['temporaries'] / 1e6:,.1f} MB of "
                f"temporaries beside {row['arguments'] / 1e6:,.1f} MB of arguments"
            )
    return {
        "schema": SCHEMA,
        "batch": batch,
        "dtype": dtype,
        "hardware": {
            "platform": jax.default_backend(),
            "device": jax.devices()[0].device_kind,
            "cores": os.cpu_count(),
            "jax": jax.__version__,
        },
        "rows": rows,
    }


def planned(config: CLIPConfig, batch: int, dtype: str, parts: int, remat: str) -> Row:
    """Bytes that XLA plans for one update on one device; nothing is allocated."""
    model = CLIP(config, dtype=jnp.dtype(dtype).type, remat=remat)
    size, length = config.vision.image_size, config.text.context_length
    shapes = {
        "image": jax.ShapeDtypeStruct((batch, size, size, 3), jnp.uint8),
        "ids": jax.ShapeDtypeStruct((batch, length), jnp.int32),
        "bits": jax.ShapeDtypeStruct((batch, NUM_BITS), jnp.float32),
        "valid": jax.ShapeDtypeStruct((batch,), bool),
    }
    optimizer = make_optimizer(Schedule(100, 10, 5e-5), 0.2)

    def initial() -> TrainState:
        pixels, ids = jnp.zeros((1, size, size, 3)), jnp.zeros((1, length), jnp.int32)
        clip = dict(model.init(jax.random.key(0), pixels, ids)["params"])
        return TrainState.create({"clip": clip}, optimizer)

    update: Any = make_update(_loss(model, parts), optimizer)
    arguments = jax.eval_shape(initial), jax.eval_shape(StepMetrics.empty), shapes
    plan = update.lower(*arguments).compile().memory_analysis()
    return {
        "temporaries": int(plan.temp_size_in_bytes),
        "arguments": int(plan.argument_size_in_bytes),
    }


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
