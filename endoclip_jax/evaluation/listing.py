"""Rows that the headline table has no column for, as aligned lines for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from endoclip_jax.evaluation.evaluate import ONE_SENTENCE
from endoclip_jax.evaluation.results import HEADLINE_COLUMNS, Row, aligned, format_value

_HEADLINE = set(HEADLINE_COLUMNS)


def format_rest(rows: Sequence[Row]) -> str:
    """One line a (task, setting, model), its metrics side by side with chance and p; "" if none."""
    lines: dict[tuple[str, str, str], list[str]] = {}
    for row in rows:
        if (row.task, row.metric, row.setting) in _HEADLINE:
            continue
        if row.setting.startswith(ONE_SENTENCE) and row.metric != "auroc":
            continue
        lines.setdefault((row.task, row.setting, row.model), []).append(_words(row))
    if not lines:
        return ""
    return aligned([[*key, "   ".join(cells)] for key, cells in lines.items()], left=4)


def _words(row: Row) -> str:
    sign = f"{row.value:+.3f} " if row.p is not None and row.value is not None else ""
    value = format_value(row)
    if sign:
        value = f"{sign}({row.low:+.3f} to {row.high:+.3f})"
    words = f"{row.metric} {value}"
    if row.chance is not None and row.value is not None:
        words += f", chance {row.chance:.3f}".replace(" 0.", " .")
    return words if row.p is None else f"{words}, p = {row.p:.3g}"
