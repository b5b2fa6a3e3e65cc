"""Opening a data set of a hospital's size: seconds and memory, in a process of its own.

`python launch/benchmark.py --suite=open` writes index files of so many patients and frames (with no
pictures behind them), then opens them in fresh processes and asks for a split's rows and a record's
frames, as training does first. Writes `open.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from endoclip_jax.benchmarks.timing import Row, about, numbers, spread, write_json
from endoclip_jax.records.splits import SPLITS
from endoclip_jax.shards.index import (
    CARD_FILE,
    SCHEMA_VERSION,
    TABLES,
    TEXT_FILE,
    table_file,
)

_ROOT = Path(__file__).resolve().parents[2]  # a fresh process has to find this very package
_SHARES = (80, 10, 10)
_JPEG = 44_000  # bytes of a frame
_SIDES = (480, 560)  # its pixels
_SENTENCE = b"A 6 mm sessile polyp with a smooth, red surface."
_RECORDS_PER_SHARD = 100

# Memory is that of the process: Python and NumPy first, then with the data set open.
_PROBE = """
import json, re, sys, time
from pathlib import Path
import numpy
def memory():
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmRSS:\\s+(\\d+)", status)[1]) * 1024
from endoclip_jax.shards.index import Index
before = memory()
began = time.perf_counter()
index = Index.open(sys.argv[1])
opened = time.perf_counter() - began
after = memory()
rows = index.rows("train")
last = index.frame_rows(rows[-1])
used = time.perf_counter() - began
print(json.dumps({"open_seconds": opened, "first_use_seconds": used, "records": len(index.records),
    "frames": len(index.frames), "memory_before": before, "memory_open": after,
    "memory_used": memory()}))
"""


def main(argv: Sequence[str], out: Path) -> int:
    """Runs the suite; `out` is the default of `--out`. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="benchmark.py --suite=open", description=__doc__)
    add = parser.add_argument
    add("--out", type=Path, default=out, help="folder of open.json")
    add("--patients", type=int, default=13_000)
    add("--frames", default="874000", help="of all patients; several sizes, with commas")
    add("--times", type=int, default=5, help="how often each is opened")
    add("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    results = about("open", seed=options.seed, rows=[])
    for frames in numbers(options.frames, "--frames"):
        with tempfile.TemporaryDirectory() as folder:
            write_index(Path(folder), options.patients, frames, options.seed)
            row = measure(Path(folder), options.times)
        results["rows"].append(row)
        print(
            f"{row['records']} patients, {row['frames']} frames: opened in "
            f"{1e3 * row['open_seconds']['median']:.1f} ms, {row['memory_used'] / 1e6:.0f} MB "
            f"resident ({row['memory_added'] / 1e6:.1f} MB of it the data set's)",
            flush=True,
        )
    write_json(options.out / "open.json", results)
    print(f"written to {options.out / 'open.json'}")
    return 0


def measure(folder: Path, times: int) -> Row:
    """Opened in so many fresh processes: spread of seconds, largest memory in bytes."""
    found: list[dict[str, Any]] = []
    paths = [str(_ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    for _ in range(times):
        done = subprocess.run(
            [sys.executable, "-c", _PROBE, str(folder)], capture_output=True, text=True, check=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        )  # fmt: skip
        found.append(json.loads(done.stdout))
    return {
        "records": found[0]["records"],
        "frames": found[0]["frames"],
        "index_bytes": sum(path.stat().st_size for path in folder.iterdir()),
        "open_seconds": spread([row["open_seconds"] for row in found]),
        "first_use_seconds": spread([row["first_use_seconds"] for row in found]),
        "memory_used": max(row["memory_used"] for row in found),
        "memory_added": max(row["memory_used"] - row["memory_before"] for row in found),
    }


def write_index(folder: Path, patients: int, frames: int, seed: int) -> None:
    """Index files of `patients` records with `frames` frames between them, as prepare has them."""
    rng = np.random.default_rng(seed)
    counts = np.bincount(rng.integers(0, patients, frames), minlength=patients)
    tables = {
        name: np.zeros(length, TABLES[name])
        for name, length in {
            "records": patients, "frames": frames, "items": patients, "polyps": patients,
        }.items()
    }  # fmt: skip
    records, own = tables["records"], tables["frames"]
    own["record"] = np.repeat(np.arange(patients), counts)
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    own["ordinal"] = np.arange(frames) - np.repeat(first, counts)
    own["length"] = _JPEG
    own["height"], own["width"] = _SIDES
    own["offset"] = np.arange(frames, dtype=np.int64) * _JPEG
    records["shard"] = np.arange(patients) // _RECORDS_PER_SHARD
    records["split"] = np.repeat(np.arange(len(SPLITS)), _divided(patients, _SHARES))
    names = np.array([f"{number:016x}" for number in range(patients)], "S16")
    records["patient"] = records["exam"] = names
    records["first_frame"], records["num_frames"] = first, counts
    records["first_item"] = records["first_polyp"] = np.arange(patients)
    for field in ("num_items", "item_count", "num_polyps", "has_polyp"):
        records[field] = 1
    for name in ("items", "polyps"):
        tables[name]["record"] = np.arange(patients)
    tables["items"]["text_length"] = len(_SENTENCE)
    tables["items"]["text_offset"] = np.arange(patients) * len(_SENTENCE)
    shards = -(-patients // _RECORDS_PER_SHARD)
    card = {
        "schema_version": SCHEMA_VERSION,
        "fingerprint": f"benchmark{frames:07d}",
        "counts": {name: len(table) for name, table in tables.items()},
        "shards": [{"name": f"endoclip-{number:05d}"} for number in range(shards)],
    }
    for name, table in tables.items():
        np.save(folder / table_file(name), table)
    (folder / TEXT_FILE).write_bytes(_SENTENCE * patients)
    (folder / CARD_FILE).write_text(json.dumps(card))


def _divided(total: int, shares: Sequence[int]) -> list[int]:
    parts = [total * share // sum(shares) for share in shares]
    return [total - sum(parts[1:]), *parts[1:]]
