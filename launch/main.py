"""python launch/main.py --config=FILE [--workdir=DIR] [--profile=N] [--config.KEY=VALUE ...]"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # a script's own folder is on the path, its parent is not

from endoclip_jax.configuration import read_command_line  # noqa: E402
from endoclip_jax.errors import exit_with  # noqa: E402


def main() -> int:
    config, overridden = read_command_line(sys.argv, ROOT)
    from endoclip_jax.training.processes import run_job  # after the flags: --help needs no JAX

    def work() -> int:
        from endoclip_jax.pipeline import run  # the processes have to meet before it is read

        return run(config, overridden)

    return run_job(config.distributed, work)


if __name__ == "__main__":
    exit_with(main)
