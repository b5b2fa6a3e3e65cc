"""python launch/predict.py --checkpoint=RUN/stage3 --images=FOLDER --prompts=P2 --out=FILE.csv"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from endoclip_jax.errors import exit_with


def main() -> None:
    from endoclip_jax.pipeline.predict import parse, predict

    predict(parse(sys.argv[1:]))


if __name__ == "__main__":
    exit_with(main)
