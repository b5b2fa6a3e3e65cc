"""Kills `launch/prepare.py` (SIGKILL) at random moments, then lets it end: the same bytes?

python tests/scripts/kill_prepare.py --examinations=60 --kills=10 --seed=0 [--records=FOLDER]

Draws a cohort, or takes FOLDER, and prepares it once undisturbed, then again with a kill -9 after a
random time each, until it was killed that often; the last run ends by itself. Prints one line a
kill; exits 1 if any file differs.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from endoclip_jax.synthetic.cohort import write_cohort

PREPARE = Path(__file__).resolve().parents[2] / "launch" / "prepare.py"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def command(records: Path, out: Path, salt: Path) -> list[str]:
    return [
        sys.executable, str(PREPARE), f"--records={records}", f"--out={out}",
        "--records_per_shard=2", f"--salt_file={salt}",
    ]  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examinations", type=int, default=60)
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--records", type=Path, help="a records folder instead of a cohort")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    rng = random.Random(flags.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "salt").write_text("5a" * 32)
        records = flags.records or folder / "records"
        if not flags.records:
            write_cohort(
                folder, seed=flags.seed, examinations={"train": flags.examinations},
                frames_per_case=flags.frames, polyps=0, processes=os.cpu_count() or 1,
            )  # fmt: skip
        whole = command(records, folder / "whole", folder / "salt")
        began = time.monotonic()
        subprocess.run(whole, check=True, capture_output=True)
        seconds = time.monotonic() - began
        print(f"undisturbed: {seconds:.1f} s, {len(contents(folder / 'whole'))} files", flush=True)
        again = command(records, folder / "out", folder / "salt")
        kills = 0
        while kills < flags.kills:
            process = subprocess.Popen(
                again, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
            )
            wait = rng.uniform(0.1, 0.7) * seconds
            try:
                process.wait(wait)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                kills += 1
                out = folder / "out"
                there = len(list(out.glob("*.tfrecord-*"))) if out.exists() else 0
                print(f"kill {kills} after {wait:.1f} s: {there} shards or pieces", flush=True)
            else:
                print(f"ended before {wait:.1f} s: begins again", flush=True)
                subprocess.run(["rm", "-rf", folder / "out", folder / "out.private"], check=True)
        subprocess.run(again, check=True, capture_output=True)
        same = contents(folder / "out") == contents(folder / "whole")
    print(f"{kills} kills, then a run to the end: {'same bytes' if same else 'OTHER BYTES'}")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
