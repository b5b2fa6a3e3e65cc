"""The command line of `launch/benchmark.py`: which suite, and where its numbers go."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from endoclip_jax.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


def _parity(argv: Sequence[str]) -> int:
    from endoclip_jax.benchmarks.parity import main  # JAX only once the suite's name is known

    return main(argv, ROOT / "runs" / "benchmarks")


def _loss(argv: Sequence[str]) -> int:
    from endoclip_jax.benchmarks.loss import main

    return main(argv, ROOT / "runs" / "benchmarks")


def _prepare(argv: Sequence[str]) -> int:
    from endoclip_jax.benchmarks.prepare import main

    return main(argv, ROOT / "runs" / "benchmarks")


def _memory(argv: Sequence[str]) -> int:
    from endoclip_jax.benchmarks.memory import main

    return main(argv, ROOT / "runs" / "benchmarks")


SUITES: dict[str, Callable[[Sequence[str]], int]] = {
    "parity": _parity,
    "loss": _loss,
    "prepare": _prepare,
    "memory": _memory,
}


def run(argv: Sequence[str]) -> int:
    """Runs the suite that `--suite` names with the rest of the arguments; returns the exit code.

    Raises:
      UserError: for a suite there is not.
    """
    parser = argparse.ArgumentParser(prog="benchmark.py", description=__doc__, add_help=False)
    parser.add_argument("--suite", help=f"one of: {', '.join(SUITES)}")
    options, rest = parser.parse_known_args(argv)
    if options.suite is None and {"-h", "--help"} & set(rest):
        parser.print_help()
        print("python launch/benchmark.py --suite=NAME --help tells what that suite takes")
        return 0
    if options.suite not in SUITES:
        named = "no suite is named" if options.suite is None else f"no suite {options.suite!r}"
        raise UserError(f"{named}: give --suite=NAME with one of {', '.join(SUITES)}")
    return SUITES[options.suite](rest)
