"""The frame loader beside decoding alone and beside PyTorch's `DataLoader`, frames a second a core.

`python launch/benchmark.py --suite=loader` draws and prepares embedded examinations (or takes
`--shards`) and lets, in turns and each on one thread of this process, work through the same frames:

    decoding     simplejpeg over the stored bytes, already in memory, full size, nothing kept
    ours         `frame_batches` as training has it: shuffled, read, checked, decoded, batched
    augmented    the same, and the device's part: crop, resize and colours, here on this processor
    DataLoader   the same JPEGs as files, Pillow and torchvision's operations; and once more with
                 our decoding, so that only the loading differs

A ratio is of frames a second within a turn: ours over the other. Ours leaves augmentation to the
device, so that `augmented` is what the whole costs where there is no other device than this
processor: its ratio to DataLoader stands beside. Bytes read are those the kernel
counts for this process (`rchar`) while a pass of ours runs. Writes `loader.json`.
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
from collections.abc import Callable, Iterable, Sequence, Sized
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import jax
import numpy as np
import simplejpeg

from endoclip_jax.benchmarks.prepare import enlarge
from endoclip_jax.benchmarks.timing import (
    Row,
    about,
    numbers,
    ratio_of,
    seconds_of,
    take_turns,
    usable_cores,
    write_json,
)
from endoclip_jax.data.augmentation import DRAWS, augment, draw_augmentation
from endoclip_jax.data.loaders import Batches, frame_batches
from endoclip_jax.data.source import Faults, FrameReader
from endoclip_jax.data.transforms import decode_onto
from endoclip_jax.data.views import Batch
from endoclip_jax.errors import UserError
from endoclip_jax.shards.index import Index
from endoclip_jax.shards.prepare import prepare
from endoclip_jax.shards.reader import read_frame
from endoclip_jax.synthetic.cohort import write_cohort

_FRAMES = 6  # of a drawn examination
_SALT = b"the loader's benchmark, no secret"


def _drained(loading: Iterable[Sized]) -> list[int]:
    return [len(part) for part in loading]


def main(argv: Sequence[str], out: Path) -> int:
    """Runs the suite; `out` is the default of `--out`. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="benchmark.py --suite=loader", description=__doc__)
    add = parser.add_argument
    add("--out", type=Path, default=out, help="folder of loader.json")
    add("--shards", default="", help="prepared data; default: embedded examinations")
    add("--examinations", type=int, default=64, help="to draw, where no data are given")
    add("--enlarge", type=int, default=0, help="make drawn frames this long, as originals are")
    add("--long_side", type=int, default=512, help="at which drawn frames are stored")
    add("--image_size", default="224", help="pixels of the model's side; several, with commas")
    add("--batch", type=int, default=32)
    add("--frames", type=int, default=1024, help="a turn; what is fetched ahead at its end is lost")
    add("--threads", type=int, default=1, help="of ours; with more, DataLoader has processes")
    add("--pairs", type=int, default=5)
    add("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    sizes = numbers(options.image_size, "--image_size")
    results = about("loader", seed=options.seed, threads=options.threads, rows=[])
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        if options.shards:
            index = Index.open(options.shards)
        else:
            index = drawn(
                scratch, options.examinations, options.long_side, options.seed, options.enlarge
            )
        for size in sizes:
            row = measure(
                index, scratch, size=size, batch=options.batch, frames=options.frames,
                threads=options.threads, pairs=options.pairs, seed=options.seed,
            )  # fmt: skip
            results["rows"].append(row)
            write_json(options.out / "loader.json", results)
            print(_line(row), flush=True)
    print(f"written to {options.out / 'loader.json'}")
    return 0


def drawn(
    folder: Path, examinations: int, long_side: int, seed: int, original_side: int = 0
) -> Index:
    """Embedded examinations, prepared; frames smaller than `long_side` stay as they are.

    With `original_side` each frame is made that long first.
    """
    write_cohort(
        folder / "cohort", seed=seed, examinations={"train": examinations},
        frames_per_case=_FRAMES, polyps=0, processes=1,
    )  # fmt: skip
    records = folder / "cohort" / "records"
    if original_side:
        enlarge(records, original_side)
    prepare(
        records, folder / "shards", long_side=long_side, workers=1,
        salt=_SALT, progress=False,
    )  # fmt: skip
    return Index.open(folder / "shards")


def measure(
    index: Index,
    scratch: Path,
    *,
    size: int,
    batch: int,
    frames: int,
    threads: int,
    pairs: int,
    seed: int,
) -> Row:
    """One row: frames a second of each side, ratios, and the bytes read for a frame drawn."""
    records = index.rows("train")
    patients = len(np.unique(index.records["patient"][records]))
    batch = min(batch, patients)
    steps = max(1, frames // batch)
    # One frame a record, so that everybody works through the same pictures.
    chosen = [index.frame_rows(int(row))[:1] for row in records]
    ours = frame_batches(
        index, records=records, candidates=chosen, global_batch=batch, seed=seed,
        stream="benchmark", image_size=size, train=True,
    )  # fmt: skip
    rows = np.concatenate(chosen)
    canvas = FrameReader(index, Faults()).canvas(rows, size)
    jpegs = [read_frame(index, int(frame)) for frame in rows]
    pictures = [jpegs[i % len(jpegs)] for i in range(steps * batch)]
    sides: dict[str, Callable[[], object]] = {
        "decoding": lambda: [len(simplejpeg.decode_jpeg(jpeg)) for jpeg in pictures],
        "our decoding": _decoding(pictures, canvas, size, seed),
        "ours": _passes(ours, steps, threads, lambda batch: batch["image"]),
        "ours, augmented": _passes(
            ours, steps, threads,
            lambda batch: jax.block_until_ready(
                augment(batch["image"], batch["augmentation"], size)
            ),
        ),
    }  # fmt: skip
    skipped = {}
    if importlib.util.find_spec("torch") is None:
        skipped["DataLoader"] = "torch is not installed"
    else:
        from endoclip_jax.benchmarks import torch_frames

        paths = _files(scratch / f"files-{size}", pictures)
        workers = 0 if threads == 1 else threads
        for name, own in (("DataLoader", None), ("DataLoader, our decoding", canvas)):
            loading = torch_frames.loader(
                paths, size=size, batch=batch, workers=workers, canvas=own, seed=seed
            )
            sides[name] = partial(_drained, loading)
    turns, _ = take_turns(sides, pairs)
    read = bytes_read(ours, index, steps)
    ratios = {name: ratio_of(turns[name], turns["ours"]) for name in turns if name != "ours"}
    if "DataLoader" in turns:
        ratios["DataLoader, both augmented"] = ratio_of(
            turns["DataLoader"], turns["ours, augmented"]
        )
    return {
        "image_size": size,
        "stored": _stored(jpegs),
        "frames": steps * batch,
        "batch": batch,
        "threads": threads,
        "cores": usable_cores(),
        "sides": {
            name: {**seconds_of(taken), "frames_per_second": _rate(taken, steps * batch)}
            for name, taken in turns.items()
        },
        "ratios": ratios,
        "bytes": read,
        "skipped": skipped,
    }


def bytes_read(batches: Batches, index: Index, steps: int) -> Row:
    """Bytes the kernel handed to this process for some steps, over those of the frames drawn.

    Where the kernel does not count (no /proc), what the shards' files were asked for.
    """
    batches.at(0)  # opens the shards
    asked = _Asked(index)
    before = _rchar()
    drawn = np.concatenate([batches.at(step)["frame"] for step in range(steps)])
    after = _rchar()
    counted = asked.stop() if before is None or after is None else after - before
    own = int(index.frames["length"][drawn].sum())
    return {
        "frames": len(drawn),
        "of_the_frames": own,
        "read": int(counted),
        "ratio": counted / own,
        "counted_by": "files" if before is None else "kernel",
    }


class _Asked:
    """Adds up what is asked of an index's shard files."""

    def __init__(self, index: Index) -> None:
        self._files, self._read, self.total = index.files, index.files.read, 0
        index.files.read = self._count  # type: ignore[method-assign]

    def _count(self, name: str, offset: int, length: int) -> bytes:
        content = self._read(name, offset, length)
        self.total += len(content)
        return content

    def stop(self) -> int:
        self._files.read = self._read  # type: ignore[method-assign]
        return self.total


def _rchar() -> int | None:
    """Bytes this process has read so far by system calls, less than those of asking."""
    try:
        text = Path("/proc/self/io").read_bytes()
    except OSError:
        return None
    return int(text.split()[1])


def _decoding(
    pictures: Sequence[bytes], canvas: tuple[int, int], size: int, seed: int
) -> Callable[[], object]:
    """What the loader does to bytes in memory: what of it is not loading."""
    image = np.zeros((*canvas, 3), np.uint8)

    def work() -> object:
        rng = np.random.default_rng(seed)
        return [
            draw_augmentation(*decode_onto(image, jpeg, size), rng.random(DRAWS))
            for jpeg in pictures
        ]

    return work


def _passes(
    batches: Batches, steps: int, threads: int, use: Callable[[Batch], Sized]
) -> Callable[[], object]:
    def work() -> object:
        iterator: Any = batches.iterate(0, threads=threads)
        try:
            return [len(use(batch)) for batch in islice(iterator, steps)]
        finally:
            iterator.close()

    return work


def _files(folder: Path, pictures: Sequence[bytes]) -> list[Path]:
    folder.mkdir()
    paths = [folder / f"{number}.jpg" for number in range(len(pictures))]
    for path, picture in zip(paths, pictures, strict=True):
        path.write_bytes(picture)
    return paths


def _stored(jpegs: Sequence[bytes]) -> Row:
    shapes = [simplejpeg.decode_jpeg_header(jpeg)[:2] for jpeg in jpegs]
    if not shapes:
        raise UserError("the data have no training frames to load")
    height, width = np.median(np.asarray(shapes), axis=0)
    return {
        "height": float(height),
        "width": float(width),
        "bytes": float(np.mean([len(jpeg) for jpeg in jpegs])),
    }


def _rate(turns: np.ndarray, frames: int) -> dict[str, float]:
    wall, cpu = np.median(turns, axis=0)
    return {"wall": frames / float(wall), "cpu": frames / float(cpu)}


def _line(row: Row) -> str:
    stored = row["stored"]
    lines = [
        f"{stored['width']:.0f}x{stored['height']:.0f} to {row['image_size']}, {row['threads']} "
        f"thread(s), {row['bytes']['ratio']:.4f} bytes read for a frame's byte"
    ]
    for name, side in row["sides"].items():
        rate = side["frames_per_second"]
        text = f"  {name}: {rate['wall']:.0f} frames/s, {rate['cpu']:.0f} a core's second"
        if name in row["ratios"]:
            ratio = row["ratios"][name]
            text += (
                f"; ours {ratio['wall']['median']:.2f} x, by processor time "
                f"{ratio['cpu']['median']:.2f}"
            )
        lines.append(text)
    lines += [f"  {name}: left out, {reason}" for name, reason in row["skipped"].items()]
    return "\n".join(lines)
