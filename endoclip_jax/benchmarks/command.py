"""The command line of `launch/benchmark.py`: which suite, and where its numbers go."""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from endoclip_jax.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "runs" / "benchmarks"

# Each module's `main(argv, folder)` runs its suite; it is imported once its name is known.
SUITES = {
    "parity": "parity",
    "step": "step",
    "loss": "loss",
    "memory": "memory",
    "loader": "loader",
    "prepare": "prepare",
    "score": "score",
    "open": "opening",
    "growth": "growth",
}
_ON_A_DEVICE = ("step", "score")  # take --device
_EVERYTHING = {"all": "every suite, one after the other", "table": "their figures as a table"}


def run(argv: Sequence[str]) -> int:
    """Runs the suite that `--suite` names with the rest of the arguments; returns the exit code.

    Raises:
      UserError: for a suite there is not.
    """
    names = ", ".join([*SUITES, *_EVERYTHING])
    parser = argparse.ArgumentParser(prog="benchmark.py", description=__doc__, add_help=False)
    parser.add_argument("--suite", help=f"one of: {names}")
    options, rest = parser.parse_known_args(argv)
    if options.suite is None and {"-h", "--help"} & set(rest):
        parser.print_help()
        print("python launch/benchmark.py --suite=NAME --help tells what that suite takes")
        return 0
    if options.suite == "all":
        return _all(rest)
    module = {**SUITES, "table": "table"}.get(options.suite)
    if module is None:
        named = "no suite is named" if options.suite is None else f"no suite {options.suite!r}"
        raise UserError(f"{named}: give --suite=NAME with one of {names}")
    main = importlib.import_module(f"endoclip_jax.benchmarks.{module}").main
    return cast(Callable[[Sequence[str], Path], int], main)(rest, RESULTS)


def _all(argv: Sequence[str]) -> int:
    """Every suite in a process of its own, for they set up JAX each in its way."""
    parser = argparse.ArgumentParser(prog="benchmark.py --suite=all", description=_all.__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON files")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    options = parser.parse_args(argv)
    failed = []
    for suite in SUITES:
        out = options.out / "parity-tiny.json" if suite == "parity" else options.out
        command = [sys.executable, str(ROOT / "launch" / "benchmark.py"), f"--suite={suite}",
                   f"--out={out}"]  # fmt: skip
        command += [f"--device={options.device}"] if suite in _ON_A_DEVICE else []
        print(f"== {suite}", flush=True)
        if subprocess.run(command).returncode:
            failed.append(suite)
    print(f"failed: {', '.join(failed)}" if failed else "every suite ran")
    return 1 if failed else 0
