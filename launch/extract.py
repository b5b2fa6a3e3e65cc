"""From reports to structured findings.

python launch/extract.py --reports=in.jsonl --out=out.jsonl [--extractor=rules|llm|both]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from endoclip_jax.errors import exit_with
from endoclip_jax.evaluation.extract_reports import extract_reports
from endoclip_jax.records.extraction.choice import add_flags, from_flags


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--reports", required=True, type=Path, help='JSONL of {"id", "report"}')
    add("--out", required=True, type=Path, help="JSONL of extractions, one row a report")
    add("--gold", type=Path, help="JSONL of gold extractions by id: prints the measures")
    add_flags(parser)
    flags = parser.parse_args()
    choice = from_flags(flags, flags.out.with_name(flags.out.name + ".private"))
    for line in extract_reports(flags.reports, flags.out, choice, flags.gold):
        print(line)


if __name__ == "__main__":
    exit_with(main)
