"""Rows that the headline table has no column for, as aligned lines for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from endoclip_jax.evaluation.evaluate import ONE_SENTENCE
from endoclip_jax.evaluation.results import HEADLINE_COLUMNS, Row, aligned, format_value

_HEADLINE = set(HEADLINE_COLUMNS)


def format_rest(rows: Sequence[Row]) -> str:
    """A block a task: a line a (setting, model) with its metrics, chance and p; "" for no rows.

    Sentences judged alone come last, by their AUROC.
    """
    rest = [row for row in rows if (row.task, row.metric, row.setting) not in _HEADLINE]
    alone = [row for row in rest if row.setting.startswith(ONE_SENTENCE)]
    blocks = []
    for task in dict.fromkeys(row.task for row in rest):
        lines: dict[tuple[str, str], list[str]] = {}
        for row in rest:
            if row.task == task and row not in alone:
                lines.setdefault((row.setting, row.model), []).append(_words(row))
        if lines:
            table = [[*key, "   ".join(cells)] for key, cells in lines.items()]
            blocks.append(f"{task}\n{aligned(table, left=3)}")
    if alone:
        table = [
            [row.model, format_value(row), row.setting] for row in alone if row.metric == "auroc"
        ]
        blocks.append(f"AUROC of each sentence alone\n{aligned(table, left=3)}")
    return "\n\n".join(blocks)


def _words(row: Row) -> str:
    if row.p is not None and row.value is not None:
        return f"{row.metric} {row.value:+.3f} ({row.low:+.3f} to {row.high:+.3f}), p = {row.p:.3g}"
    words = f"{row.metric} {format_value(row)}"
    if row.chance is not None and row.value is not None:
        words += f", chance {row.chance:.3f}".replace(" 0.", " .")
    return words
