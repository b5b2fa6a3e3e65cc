"""Tables of several models over several seeds: as data, as text, as Markdown, as a page's parts.

A cell is the mean over seeds ± their standard deviation (n − 1), with the 95 % t-interval of the
mean beside it in the JSON. What could not be measured is a dash with its reason below the table.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from endoclip_jax.evaluation.page import Bullets, Paragraph, Part, Table
from endoclip_jax.evaluation.verdicts import ClaimTest, t_interval

SCHEMA = 1
Column = tuple[str, str, str]
"""(task, metric, setting), as in `results.HEADLINE_COLUMNS`."""


@dataclass(frozen=True)
class Cell:
    """One number over seeds. `chance` and the paper's number are shares like the values."""

    values: tuple[float, ...]
    chance: float | None = None
    paper: float | None = None

    @property
    def mean(self) -> float:
        return float(np.mean(self.values))

    @property
    def sd(self) -> float:
        """Standard deviation (n − 1) over seeds; NaN for one seed."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else math.nan

    @property
    def text(self) -> str:
        """ ".728 ±.012", of one seed ".728"."""
        spread = "" if math.isnan(self.sd) else f" ±{_share(self.sd)}"
        return _share(self.mean) + spread


@dataclass(frozen=True)
class Line:
    """One model's cells; `marks` are what Table 2 prints before them, `missing` why a dash."""

    name: str
    cells: Mapping[Column, Cell]
    marks: tuple[str, ...] = ()
    missing: str = ""
    seeds: tuple[int, ...] = ()


@dataclass(frozen=True)
class Judged:
    """A claim with its test; None where a model of the two was not measured."""

    claim: str
    better: str
    worse: str
    column: Column
    test: ClaimTest | None
    paper_gain: float | None = None

    @property
    def sentence(self) -> str:
        """The claim, the verdict and the numbers behind it."""
        of_what = f"“{self.better}” over “{self.worse}”, {' '.join(self.column)}"
        if self.test is None:
            return f"{self.claim}: not measured ({of_what})"
        seeds, patients = self.test.over_seeds, self.test.over_patients
        count = len(self.test.of_seeds)
        said = (
            f"{self.claim}: {self.test.verdict.upper()}, {self.test.difference:+.3f} ({of_what}; "
            f"{count} seed{'s' * (count > 1)}, 95 % over seeds {_range(seeds.low, seeds.high)}, "
            f"over patients {_range(patients.low, patients.high)}: {self.test.why})"
        )
        if self.paper_gain is not None:
            low = min(seeds.low, patients.low)
            high = max(seeds.high, patients.high)
            where = "inside" if low <= self.paper_gain <= high else "outside"
            said += f"; the paper's {self.paper_gain:+.3f} lies {where} these intervals"
        return said


@dataclass(frozen=True)
class Match:
    """How often one patient of eight is recognised, as a share, for one form of attention."""

    attention: str
    features: str
    values: tuple[float, ...]


@dataclass(frozen=True)
class ResultTable:
    """A whole table with all that is needed to read it."""

    name: str
    title: str
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    seeds: tuple[int, ...]
    mark_names: tuple[str, ...] = ()
    claims: tuple[Judged, ...] = ()
    matches: tuple[Match, ...] = ()
    paper_rows: Mapping[str, Mapping[Column, float]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


def rows_of_text(table: ResultTable) -> tuple[list[str], list[list[str]]]:
    """Heading and rows: each model's, below it the paper's where there is one, last chance."""
    heading = ["", *table.mark_names, *(column_name(column) for column in table.columns)]
    rows = []
    for line in table.lines:
        marks = list(line.marks) or [""] * len(table.mark_names)
        cells = [line.cells.get(column) for column in table.columns]
        rows.append([line.name, *marks, *("–" if c is None else c.text for c in cells)])
        if any(c is not None and c.paper is not None for c in cells):
            printed = [
                "" if c is None or c.paper is None else f"[{_share(c.paper, 4)}]" for c in cells
            ]
            rows.append(["  the paper's", *[""] * len(table.mark_names), *printed])
    chances = [_chance(table, column) for column in table.columns]
    rows.append(["chance", *[""] * len(table.mark_names), *chances])
    for name, values in table.paper_rows.items():
        printed = [f"[{_share(values[c], 4)}]" if c in values else "" for c in table.columns]
        rows.append([f"the paper's {name}", *["?"] * len(table.mark_names), *printed])
    return heading, rows


def as_text(table: ResultTable) -> str:
    """The table for a terminal, with the verdicts and notes below it."""
    heading, rows = rows_of_text(table)
    widths = [max(len(row[n]) for row in [heading, *rows]) for n in range(len(heading))]
    lines = [
        "  ".join(
            cell.ljust(width) if n == 0 else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in [heading, *rows]
    ]
    return "\n".join([table.title, *lines, *(f"- {sentence}" for sentence in sentences(table))])


def as_markdown(table: ResultTable) -> str:
    """The same as a Markdown table."""
    heading, rows = rows_of_text(table)
    lines = [
        f"| {' | '.join(heading)} |",
        f"|{'---|' * len(heading)}",
        *(f"| {' | '.join(row).replace('  the', 'the')} |" for row in rows),
    ]
    below = "\n".join(f"- {sentence}" for sentence in sentences(table))
    return f"## {table.title}\n\n" + "\n".join(lines) + f"\n\n{below}\n"


def as_parts(table: ResultTable) -> tuple[Part, ...]:
    """The same as parts of a page."""
    heading, rows = rows_of_text(table)
    quiet = tuple(n for n, row in enumerate(rows) if "the paper's" in row[0] or row[0] == "chance")
    return (
        Table(
            columns=tuple(heading),
            rows=tuple(tuple(row) for row in rows),
            caption=table.title,
            quiet=quiet,
            numeric=True,
        ),
        Paragraph("Mean ± standard deviation over seeds. In brackets: the paper.", note=True),
        Bullets(tuple(sentences(table))),
    )


def sentences(table: ResultTable) -> list[str]:
    """What stands below the table: verdicts, match rates, reasons for dashes, notes."""
    said = [claim.sentence for claim in table.claims]
    said += [
        f"{match.attention}, {match.features}: {Cell(match.values).text} of the patients matched "
        "among 8 (chance .125)"
        for match in table.matches
    ]
    said += [f"{line.name}: – {line.missing}" for line in table.lines if line.missing]
    return [*said, *table.notes]


def as_json(table: ResultTable) -> dict[str, Any]:
    """The table as JSON's types; what is infinite or NaN is null."""
    content = {
        "schema": SCHEMA,
        "table": table.name,
        "title": table.title,
        "seeds": table.seeds,
        "columns": table.columns,
        "rows": [
            {
                "name": line.name,
                "marks": dict(zip(table.mark_names, line.marks, strict=False)),
                "missing": line.missing,
                "seeds": line.seeds,
                "cells": [_cell(column, cell) for column, cell in line.cells.items()],
            }
            for line in table.lines
        ],
        "claims": [
            {
                "claim": judged.claim,
                "better": judged.better,
                "worse": judged.worse,
                "column": judged.column,
                "paper_gain": judged.paper_gain,
                "verdict": None if judged.test is None else judged.test.verdict,
                "test": None if judged.test is None else asdict(judged.test),
            }
            for judged in table.claims
        ],
        "matches": [{**asdict(match), "chance": 0.125} for match in table.matches],
        "paper": {
            name: [{"column": column, "value": value} for column, value in cells.items()]
            for name, cells in table.paper_rows.items()
        },
        "notes": table.notes,
        **table.facts,
    }
    return _finite(content)


def json_text(content: Mapping[str, Any]) -> str:
    """JSON as the tables' files hold it."""
    return json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def column_name(column: Column) -> str:
    """ "detection AUROC zero-shot"."""
    task, metric, setting = column
    return f"{task} {metric.upper() if metric.startswith('au') else metric} {setting}"


def _cell(column: Column, cell: Cell) -> dict[str, Any]:
    interval = t_interval(cell.values)
    return {
        "column": column,
        "values": cell.values,
        "mean": cell.mean,
        "sd": cell.sd,
        "low": interval.low,
        "high": interval.high,
        "chance": cell.chance,
        "paper": cell.paper,
    }


def _chance(table: ResultTable, column: Column) -> str:
    known = [
        line.cells[column].chance
        for line in table.lines
        if column in line.cells and line.cells[column].chance is not None
    ]
    return _share(float(np.mean([c for c in known if c is not None]))) if known else "–"


def _share(value: float, digits: int = 3) -> str:
    text = f"{value:.{digits}f}"
    return text[1:] if text.startswith("0.") else text


def _range(low: float, high: float) -> str:
    return f"{low:+.3f} to {high:+.3f}"


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
