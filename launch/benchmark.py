"""python launch/benchmark.py --suite=NAME [--out=...] [its own arguments: --suite=NAME --help]"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from endoclip_jax.errors import exit_with


def main() -> int:
    from endoclip_jax.benchmarks.command import run

    return run(sys.argv[1:])


if __name__ == "__main__":
    exit_with(main)
