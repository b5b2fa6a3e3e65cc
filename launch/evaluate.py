"""python launch/evaluate.py --checkpoint=RUN/stage3 --data=FOLDER_OR_SHARDS [--second=RUN/clip]"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from endoclip_jax.errors import exit_with


def main() -> None:
    from endoclip_jax.pipeline.labelled import evaluate_labelled, parse

    evaluate_labelled(parse(sys.argv[1:]))


if __name__ == "__main__":
    exit_with(main)
