"""From a hospital's records to shards.

python launch/prepare.py --records=FOLDER --out=FOLDER            prepare, or go on
python launch/prepare.py --records=NEW --out=FOLDER --append      add a delivery
python launch/prepare.py --out=FOLDER --remove=FILE               take patients out
python launch/prepare.py --records=FOLDER --out=FOLDER --task=I --tasks=N
    one task of an array job; when all are done, the command without --task merges
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from endoclip_jax.errors import UserError, exit_with
from endoclip_jax.records.extraction.choice import add_flags, from_flags
from endoclip_jax.records.privacy import read_salt
from endoclip_jax.shards.prepare import Summary, prepare, prepare_task
from endoclip_jax.shards.removal import remove_patients
from endoclip_jax.shards.state import private_of


def _shares(text: str) -> tuple[float, float, float]:
    try:
        train, validation, test = (float(share) for share in text.split(","))
    except ValueError:
        raise UserError(f"--splits={text} are no three shares: give e.g. 80,10,10") from None
    return train, validation, test


def _flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--records", help="records.csv or records.jsonl, or a folder an examination")
    add("--out", required=True, help="folder for the shards; OUT.private takes salt and raw ids")
    add("--long_side", type=int, default=512, help="pixels of a stored frame (default 512)")
    add("--quality", type=int, default=92, help="JPEG quality of a stored frame (default 92)")
    add("--splits", default="80,10,10", help="shares of patients (default 80,10,10)")
    add("--records_per_shard", type=int, default=64, help="examinations a shard (default 64)")
    add("--drop_duplicates", action="store_true", help="leave out near-duplicate frames")
    add("--drop_text", action="store_true", help="leave out frames that still show writing")
    add("--append", action="store_true", help="add the records to what OUT holds")
    add("--remove", metavar="FILE", help="remove the patients whose ids FILE has, one a line")
    add("--task", type=int, help="which task of an array job this is, from 0")
    add("--tasks", type=int, help="how many tasks the array job has")
    add("--workers", type=int, help="processes (default: all cores)")
    add("--salt_file", type=Path, help="salt of an earlier data set, so that its hashes hold")
    add_flags(parser)
    return parser.parse_args()


def main() -> None:
    flags = _flags()
    if (flags.records is None) == (flags.remove is None):
        raise UserError("pass --records=FOLDER to prepare, or --remove=FILE to remove patients")
    if (flags.task is None) != (flags.tasks is None):
        raise UserError("--task and --tasks go together: give both, or neither")
    out = Path(flags.out).expanduser().absolute()
    extractor = from_flags(flags, private_of(out))
    if flags.remove is not None:
        removal = remove_patients(flags.out, flags.remove)
        print(f"removed: {removal.found} of {removal.asked} patients were in the data set")
        _show(Summary(out, removal.card, already_done=False))
        return
    options = {
        "long_side": flags.long_side,
        "quality": flags.quality,
        "splits": _shares(flags.splits),
        "records_per_shard": flags.records_per_shard,
        "drop_duplicates": flags.drop_duplicates,
        "drop_text": flags.drop_text,
        "extractor": extractor,
        "append": flags.append,
        "workers": flags.workers,
        "salt": read_salt(flags.salt_file) if flags.salt_file else None,
    }
    if flags.task is None:
        _show(prepare(flags.records, flags.out, **options))
        return
    mine, all_shards = prepare_task(
        flags.records, flags.out, task=flags.task, tasks=flags.tasks, **options
    )
    print(
        f"task {flags.task} of {flags.tasks}: {mine} of {all_shards} shards are written; when all "
        "tasks are done, run the same command without --task and --tasks"
    )


def _show(summary: Summary) -> None:
    for line in summary.lines():
        print(line)


if __name__ == "__main__":
    exit_with(main)
