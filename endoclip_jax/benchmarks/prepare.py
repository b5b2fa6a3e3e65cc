"""What preparation costs beside decoding, resizing and encoding alone; and its memory as data grow.

`python launch/benchmark.py --suite=prepare --records=FOLDER` takes a records folder's pictures in
turns, A B C A B C: A decodes, resizes and encodes with the very calls of prepare; B is all that
prepare does with a picture (A, the field of view, writing, the perceptual hash), and C is `prepare`
itself with one worker, from the manifest to the card. The first turn warms up and counts in no
ratio; what its C took more than those after it is `start_s`, what a process pays once (imports,
patterns of the reports' reader). All is processor time. `--grow=100,1000` prepares embedded cohorts
of that many examinations and takes the largest memory of the main process and of its workers.
Writes `prepare.json`.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import simplejpeg
from PIL import Image

from endoclip_jax.benchmarks.timing import about, spread, write_json
from endoclip_jax.errors import UserError
from endoclip_jax.records.frames import capped, decode_image, encoded, stored_image
from endoclip_jax.records.manifest import Examination, read_records
from endoclip_jax.shards.index import read_card
from endoclip_jax.shards.prepare import prepare
from endoclip_jax.shards.work import keep_memory_of_pictures, one_thread_a_product
from endoclip_jax.synthetic.cohort import write_cohort

_EXAMINATIONS = 60  # of the embedded cohort: a shard's worth, beside which its card weighs little


def main(argv: Sequence[str], out: Path) -> int:
    """Runs the suite; `out` is the default of `--out`. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="prepare", description=__doc__)
    add = parser.add_argument
    add("--records", help="records folder; default: an embedded cohort")
    add("--out", type=Path, default=out, help="folder of prepare.json")
    add("--long_side", type=int, default=512, help="pixels of a stored frame")
    add(
        "--enlarge", type=int, default=0, help="make the pictures this long first, as originals are"
    )
    add("--frames", type=int, default=200, help="pictures a turn, at most")
    add("--pairs", type=int, default=5, help="turns")
    add("--grow", default="", help="cohort sizes to take memory at, e.g. 100,1000")
    add("--seed", type=int, default=0, help="of the embedded cohorts")
    options = parser.parse_args(argv)
    results = about("prepare", seed=options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        records = Path(options.records) if options.records else folder / "cohort" / "records"
        if not options.records:
            _cohort(folder / "cohort", _EXAMINATIONS, options.seed)
        if options.enlarge:
            records = shutil.copytree(records, folder / "enlarged")
            enlarge(records, options.enlarge)
        keep_memory_of_pictures()  # as a worker; A gains by it too
        with one_thread_a_product():
            results["speed"] = speed(
                records, folder, options.long_side, options.frames, options.pairs
            )
        results["speed"]["enlarged_to"] = options.enlarge or None
        results["memory"] = [
            memory(folder / f"grown-{size}", int(size), options.seed)
            for size in options.grow.split(",")
            if size
        ]
    write_json(options.out / "prepare.json", results)
    print(json.dumps({name: results[name] for name in ("speed", "memory")}, indent=1))
    print(f"written to {options.out / 'prepare.json'}")
    return 0


def speed(records: Path, folder: Path, long_side: int, most: int, pairs: int) -> dict[str, Any]:
    """Milliseconds a frame (medians) and the turns' ratios, all of processor time; `start_s` in
    seconds."""
    found = [exam for exam in read_records(records) if isinstance(exam, Examination)]
    pictures = [path.read_bytes() for exam in found for path in exam.images][:most]
    if not pictures:
        raise UserError(f"{records} has no pictures")

    def alone(_: int) -> None:
        for picture in pictures:
            encoded(capped(simplejpeg.decode_jpeg(picture, "RGB"), long_side), 92)

    def with_checks(_: int) -> None:
        for picture in pictures:
            stored_image(picture, long_side, 92)

    def whole(turn: int) -> None:
        out = folder / f"whole-{turn}"
        prepare(records, out, long_side=long_side, workers=1, progress=False)

    frames = sum(len(exam.images) for exam in found)
    works = ((alone, len(pictures)), (with_checks, len(pictures)), (whole, frames))
    turns = []
    for turn in range(pairs + 1):
        seconds = []
        for work, done in works:
            began = time.process_time()
            work(turn)
            seconds.append((time.process_time() - began) / done)
        turns.append(seconds)
    base, checked, prepared = zip(*turns[1:], strict=True)
    return {
        "pictures": len(pictures),
        "long_side": long_side,
        "decode_resize_encode_ms": 1e3 * statistics.median(base),
        "prepared_frame_ms": 1e3 * statistics.median(checked),
        "ratio_frame": spread([a / b for a, b in zip(base, checked, strict=True)]),
        "frames": frames,
        "prepare_one_worker_ms": 1e3 * statistics.median(prepared),
        "ratio_prepare": spread([a / c for a, c in zip(base, prepared, strict=True)]),
        "start_s": frames * (turns[0][2] - statistics.median(prepared)),
    }


def enlarge(records: Path, long_side: int) -> None:
    """Makes a folder's JPEGs as large as a hospital's originals, in quality 92."""
    for path in records.rglob("*.jpg"):
        pixels = decode_image(path.read_bytes())
        scale = long_side / max(pixels.shape[:2])
        size = (round(pixels.shape[1] * scale), round(pixels.shape[0] * scale))
        image = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
        image.save(path, "JPEG", quality=92)


def memory(folder: Path, examinations: int, seed: int) -> dict[str, Any]:
    """Largest resident memory, in MB, of `launch/prepare.py` and of any of its workers, and the
    data card's accounting: rows and frames that went in, were stored and were left out."""
    _cohort(folder, examinations, seed)
    launcher = Path(__file__).resolve().parents[2] / "launch" / "prepare.py"
    process = subprocess.Popen(
        [
            sys.executable, str(launcher), f"--records={folder / 'records'}",
            f"--out={folder / 'out'}", "--workers=2",
        ],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    main = worker = 0
    while process.poll() is None:
        main = max(main, _peak(process.pid))
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        try:
            worker = max([worker, *(_peak(int(child)) for child in children.read_text().split())])
        except OSError:
            break
        time.sleep(0.2)
    if process.wait():
        raise UserError(f"launch/prepare.py ended with {process.returncode}")
    return {
        "examinations": examinations,
        "main_mb": main,
        "largest_worker_mb": worker,
        "accounting": read_card(folder / "out")["accounting"],
    }


def _peak(process: int) -> int:
    """Largest resident memory of a process so far in MB; 0 if it is gone."""
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    except OSError:
        return 0
    return int(found[1]) // 1024 if found else 0


def _cohort(folder: Path, examinations: int, seed: int) -> None:
    write_cohort(
        folder, seed=seed, examinations={"train": examinations}, frames_per_case=6, polyps=0,
        processes=1,
    )  # fmt: skip
