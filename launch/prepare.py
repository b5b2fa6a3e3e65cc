"""From a hospital's records to shards.

python launch/prepare.py --records=FOLDER --out=FOLDER
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from endoclip_jax.errors import UserError, exit_with
from endoclip_jax.records.privacy import read_salt
from endoclip_jax.shards.prepare import prepare


def _shares(text: str) -> tuple[float, float, float]:
    try:
        train, validation, test = (float(share) for share in text.split(","))
    except ValueError:
        raise UserError(f"--splits={text} are no three shares: give e.g. 80,10,10") from None
    return train, validation, test


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--records", required=True, help="records.csv or records.jsonl, or a folder an examination")
    add("--out", required=True, help="folder for the shards; OUT.private takes salt and raw ids")
    add("--long_side", type=int, default=512, help="pixels of a stored frame (default 512)")
    add("--quality", type=int, default=92, help="JPEG quality of a stored frame (default 92)")
    add("--splits", default="80,10,10", help="shares of patients (default 80,10,10)")
    add("--records_per_shard", type=int, default=64, help="examinations a shard (default 64)")
    add("--workers", type=int, help="processes (default: all cores)")
    add("--salt_file", type=Path, help="salt of an earlier data set, so that its hashes hold")
    flags = parser.parse_args()
    summary = prepare(
        flags.records,
        flags.out,
        long_side=flags.long_side,
        quality=flags.quality,
        splits=_shares(flags.splits),
        records_per_shard=flags.records_per_shard,
        workers=flags.workers,
        salt=read_salt(flags.salt_file) if flags.salt_file else None,
    )
    for line in summary.lines():
        print(line)


if __name__ == "__main__":
    exit_with(main)
