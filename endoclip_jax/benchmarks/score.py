"""The scoring pass beside its forward pass alone.

`python launch/benchmark.py --suite=score` embeds the frames of embedded examinations (or of
`--shards`) as stage 1 does when it selects frames: read, decoded, resized, encoded. In turns with
it the same encoder works through batches of the same shape that lie on the device. A ratio is the
forward pass's time over the scoring pass's. Writes `score.json`.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from endoclip_jax.benchmarks.loader import drawn
from endoclip_jax.benchmarks.material import SIZES
from endoclip_jax.benchmarks.timing import (
    Row,
    about,
    choose_device,
    ratio_of,
    seconds_of,
    take_turns,
    write_json,
)
from endoclip_jax.data.loaders import scoring_batches
from endoclip_jax.data.transforms import normalize
from endoclip_jax.models.clip import CLIP, initial_params
from endoclip_jax.shards.index import Index
from endoclip_jax.training.embedding import embed_frames


def main(argv: Sequence[str], out: Path) -> int:
    """Runs the suite; `out` is the default of `--out`. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="benchmark.py --suite=score", description=__doc__)
    add = parser.add_argument
    add("--out", type=Path, default=out, help="folder of score.json")
    add("--shards", default="", help="prepared data; default: embedded examinations")
    add("--examinations", type=int, default=16, help="to draw, where no data are given")
    add("--long_side", type=int, default=512)
    add("--size", choices=sorted(SIZES), default="vit-b32", help="of the model")
    add("--batch", type=int, default=32)
    add("--frames", type=int, default=96, help="a turn")
    add("--device", choices=("cpu", "gpu"), default="cpu")
    add("--dtype", choices=("float32", "bfloat16"), default="float32")
    add("--pairs", type=int, default=5)
    add("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    choose_device(options.device)
    model = CLIP(SIZES[options.size].model, dtype=jnp.dtype(options.dtype).type)
    with tempfile.TemporaryDirectory() as scratch:
        if options.shards:
            index = Index.open(options.shards)
        else:
            index = drawn(Path(scratch), options.examinations, options.long_side, options.seed)
        row = measure(model, index, options.batch, options.frames, options.pairs)
    results = about("score", size=options.size, dtype=options.dtype, seed=options.seed, rows=[row])
    write_json(options.out / "score.json", results)
    ratio = row["ratio"]
    print(
        f"{row['frames']} frames: scoring {row['scoring']['wall']['median']:.2f} s, forward alone "
        f"{row['forward']['wall']['median']:.2f} s; {ratio['wall']['median']:.2f} of its rate "
        f"({ratio['wall']['low']:.2f} to {ratio['wall']['high']:.2f})"
    )
    print(f"written to {options.out / 'score.json'}")
    return 0


def measure(model: CLIP, index: Index, batch: int, frames: int, pairs: int) -> Row:
    """Seconds of both for `frames` frames in whole batches, and the ratio."""
    batches = max(1, frames // batch)
    chosen = np.resize(np.arange(len(index.frames)), batches * batch)
    params = jax.device_put(initial_params(model, 0))
    size = model.config.vision.image_size
    encode = jax.jit(
        lambda params, image: model.apply(
            {"params": params}, normalize(image), method="encode_image"
        )
    )
    image = jax.device_put(
        np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), dtype=np.uint8)
    )

    def forward() -> None:
        waiting: list[Any] = [encode(params, image) for _ in range(batches)]
        jax.block_until_ready(waiting)

    def scoring() -> None:
        loaded = scoring_batches(index, chosen, batch=batch, image_size=size)
        features, _ = embed_frames(model, params, loaded)
        assert len(features) == len(chosen), "a frame could not be read"

    turns, _ = take_turns({"scoring": scoring, "forward": forward}, pairs)
    return {
        "frames": len(chosen),
        "batch": batch,
        "image_size": size,
        **{name: seconds_of(taken) for name, taken in turns.items()},
        "ratio": ratio_of(turns["forward"], turns["scoring"]),
    }
