"""Reports read by a language model, in the main process, one shard's at a time."""

from __future__ import annotations

import sys
from pathlib import Path

from endoclip_jax.records.extraction.choice import Choice, destination
from endoclip_jax.records.manifest import Examination, examine
from endoclip_jax.shards.work import BlockReader
from endoclip_jax.shards.writer import Block, Readings


def block_reader(choice: Choice, folder: Path, progress: bool) -> BlockReader:
    """Reads the reports of a block's rows; rows that are rejects have none."""
    if choice.llm is not None and progress:
        where = destination(choice.llm.base_url)
        print(f"reports go to {where}; answers are kept in {choice.llm.cache}", file=sys.stderr)

    def read(block: Block) -> Readings:
        reports = {}
        for row in block.rows:
            examination = examine(folder, row)
            if isinstance(examination, Examination):
                reports[row.number] = examination.report
        return dict(zip(reports, choice.readings(list(reports.values())), strict=True))

    return read
