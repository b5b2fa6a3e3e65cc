"""Trains every stage on 1 device, on 8, and on 2 processes of 4: the same samples and losses?

python tests/scripts/same_numbers.py --steps=20 --seed=0

Draws a small cohort, then runs `launch/main.py` for stages 1, 2 and 3 in each of
the three layouts, from nothing, with the same seed, float32, and XLA's optimisations on. Prints a
table; exits 1 if a step's sample ids differ or a loss by more than 1e-5 relative.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "multihost"))

from jobs import run_job
from numbers_of_runs import (
    STAGES,
    compare,
    demonstration_arguments,
    small_data,
    steps_an_epoch,
    with_data,
)

LAYOUTS = {
    "1 process, 1 device": {"processes": 1, "devices": 1},
    "1 process, 8 devices": {"processes": 1, "devices": 8},
    "2 processes, 4 devices": {"processes": 2, "devices": 4},
}
TOLERANCE = 1e-5


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20, help="at least, of each stage and round")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", help="folder of compiled programs, to go faster again")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = small_data(folder / "data", flags.seed)
        per_epoch = steps_an_epoch(data)
        runs = {}
        for number, (layout, options) in enumerate(LAYOUTS.items()):
            own = folder / str(number)
            own.mkdir()
            workdir = own / "run"
            arguments = demonstration_arguments(
                workdir, per_epoch, steps=flags.steps, seed=flags.seed
            )
            with_data(workdir, data, arguments)
            began = time.monotonic()
            run_job(
                arguments, folder=own, optimised=True, cache=flags.cache, timeout=3600, **options
            )
            runs[layout] = workdir
            print(f"{layout}: {time.monotonic() - began:.0f} s", flush=True)
        first, *others = runs
        print("\n| against 1 process, 1 device | stage | steps | sample ids | largest difference |")
        print("|---|---|---|---|---|")
        good = True
        for layout in others:
            for stage in STAGES:
                steps, same_ids, difference = compare(runs[first] / stage, runs[layout] / stage)
                good &= same_ids and difference <= TOLERANCE and steps >= flags.steps
                ids = "identical" if same_ids else "DIFFERENT"
                print(f"| {layout} | {stage} | {steps} | {ids} | {difference:.1e} |")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
