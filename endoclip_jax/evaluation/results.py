"""`results.json` and the table printed in the terminal.

A `Row` is one number with its interval. For zero-shot rows `low` and `high` bound the
patient-clustered 95 % bootstrap interval; for few-shot rows they are the mean over seeds ∓ one
standard deviation. `chance` is what a score that knows nothing would get.
"""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from endoclip_jax.errors import UserError
from endoclip_jax.evaluation.few_shot import FewShot
from endoclip_jax.evaluation.statistics import (
    DRAWS,
    Groups,
    Interval,
    Labels,
    chance,
    interval,
)
from endoclip_jax.files import replace_file

SCHEMA = 1
UNKNOWN_COMMIT = "unknown"
ZERO_SHOT = "zero-shot"

HEADLINE_COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("detection", "auroc", ZERO_SHOT),
    ("detection", "auroc", "5 %"),
    ("detection", "auroc", "10 %"),
    ("detection", "aupr", ZERO_SHOT),
    ("detection", "aupr", "5 %"),
    ("detection", "aupr", "10 %"),
    ("malignancy", "auroc", ZERO_SHOT),
    ("malignancy", "auroc", "10 %"),
    ("malignancy", "auroc", "20 %"),
    ("malignancy", "aupr", ZERO_SHOT),
    ("malignancy", "aupr", "10 %"),
    ("malignancy", "aupr", "20 %"),
)
"""(task, metric, setting) in the order of the paper's Table 1."""


@dataclass(frozen=True)
class Row:
    """One measured number. `value` None: the model does not support the setting (a dash).

    `setting` is "zero-shot" for the headline prompts, "zero-shot P0" and the like for the others,
    or the training fraction as "10 %".
    """

    model: str
    task: str
    setting: str
    metric: str
    value: float | None
    low: float | None = None
    high: float | None = None
    chance: float | None = None
    n_pos: int | None = None
    n_neg: int | None = None
    p: float | None = None  # two-sided, of a difference between two models

    @property
    def is_few_shot(self) -> bool:
        return self.setting.endswith("%")


@dataclass(frozen=True)
class Results:
    """The content of a `results.json`."""

    seed: int
    commit: str
    hardware: str
    seconds: dict[str, float]
    rows: tuple[Row, ...]
    schema: int = SCHEMA


def scored_rows(
    model: str,
    task: str,
    setting: str,
    scores: Float[np.ndarray, " n"],
    labels: Labels,
    patients: Groups,
    seed: int,
    draws: int = DRAWS,
) -> list[Row]:
    """The AUROC and AUPR rows of one zero-shot score, with patient-clustered intervals."""
    rows = []
    for metric in ("auroc", "aupr"):
        spread = interval(metric, scores, labels, patients, seed, draws)
        rows.append(_row(model, task, setting, metric, labels, spread))
    return rows


def few_shot_rows(model: str, task: str, result: FewShot, labels: Labels) -> list[Row]:
    """The AUROC and AUPR rows of one few-shot run: mean over seeds ∓ one standard deviation."""
    rows = []
    for metric in ("auroc", "aupr"):
        mean, sd = result.mean_sd(metric)
        spread = Interval(mean, mean - sd, mean + sd)
        rows.append(_row(model, task, f"{100 * result.fraction:g} %", metric, labels, spread))
    return rows


def interval_row(
    model: str,
    task: str,
    setting: str,
    metric: str,
    spread: Interval,
    *,
    chance: float | None = None,
    n_pos: int | None = None,
    n_neg: int | None = None,
    p: float | None = None,
) -> Row:
    """The row of any number with its interval; a dash where it has no value."""
    if not math.isfinite(spread.value):
        return Row(model, task, setting, metric, None, n_pos=n_pos, n_neg=n_neg)
    low, high = spread.low, spread.high
    return Row(model, task, setting, metric, spread.value, low, high, chance, n_pos, n_neg, p)


def write_results(
    path: Path,
    rows: Sequence[Row],
    *,
    seed: int,
    seconds: dict[str, float],
    commit: str | None = None,
    hardware: str | None = None,
) -> Results:
    """Write `results.json` whole or not at all; commit and hardware are found when not given."""
    results = Results(
        seed=seed,
        commit=current_commit() if commit is None else commit,
        hardware=describe_hardware() if hardware is None else hardware,
        seconds=dict(seconds),
        rows=tuple(rows),
    )
    path = Path(path)
    text = json.dumps(asdict(results), indent=1, allow_nan=False, sort_keys=True)
    replace_file(path, text + "\n")
    return results


def read_results(path: Path) -> Results:
    """The content of a `results.json`; `UserError` if missing, broken or of another schema."""
    path = Path(path)
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist: run the evaluation that writes it") from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}): run the evaluation again") from error
    found = content.get("schema") if isinstance(content, dict) else None
    if found != SCHEMA:
        raise UserError(
            f"{path} has schema {found!r}, this version reads {SCHEMA}: run the evaluation again"
        )
    try:
        rows = tuple(Row(**row) for row in content.pop("rows"))
        return Results(rows=rows, **content)
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{path} lacks or misnames a field ({error}): run the evaluation again"
        ) from error


def headline_cells(rows: Sequence[Row]) -> tuple[tuple[str, ...], dict[tuple[str, int], Row]]:
    """Models in order of appearance, and the row of each (model, headline column)."""
    column = {key: number for number, key in enumerate(HEADLINE_COLUMNS)}
    cells: dict[tuple[str, int], Row] = {}
    for row in rows:
        number = column.get((row.task, row.metric, row.setting))
        if number is not None:
            cells[row.model, number] = row
    return tuple(dict.fromkeys(model for model, _ in cells)), cells


def headline_numbers(cells: Mapping[tuple[str, int], Row]) -> list[int]:
    """The headline columns that any model has a row for, in their order."""
    return sorted({number for _, number in cells})


def class_counts(rows: Sequence[Row], task: str) -> str:
    """Of a task, " (68 positive, 16 negative)"; empty when none of its rows counts."""
    for row in rows:
        if row.task == task and row.n_pos is not None and row.n_neg is not None:
            return f" ({row.n_pos:,} positive, {row.n_neg:,} negative)"
    return ""


def chance_levels(rows: Sequence[Row]) -> dict[int, float]:
    """The chance level of each headline column that any model has a row for."""
    _, cells = headline_cells(rows)
    return {number: row.chance for (_, number), row in cells.items() if row.chance is not None}


def format_value(row: Row | None) -> str:
    """A value with its spread: ".812 (.79–.83)" bootstrap, ".812 ±.020" over seeds, "–" if none."""
    if row is None or row.value is None:
        return "–"
    text = _decimal(row.value, 3)
    if row.low is None or row.high is None:
        return text
    if row.is_few_shot:
        return f"{text} ±{_decimal((row.high - row.low) / 2, 3)}"
    return f"{text} ({_decimal(row.low, 2)}–{_decimal(row.high, 2)})"


def format_table(rows: Sequence[Row]) -> str:
    """The headline table as aligned plain text: one block for each task, models as lines."""
    models, cells = headline_cells(rows)
    chances = chance_levels(rows)
    blocks = []
    for task in dict.fromkeys(task for task, _, _ in HEADLINE_COLUMNS):
        numbers = [n for n in headline_numbers(cells) if HEADLINE_COLUMNS[n][0] == task]
        if not numbers:
            continue
        names = [f"{HEADLINE_COLUMNS[n][1].upper()} {HEADLINE_COLUMNS[n][2]}" for n in numbers]
        lines = [["", *names]]
        lines += [[m, *(format_value(cells.get((m, n))) for n in numbers)] for m in models]
        lines += [["chance", *(_decimal(chances.get(n, math.nan), 3) for n in numbers)]]
        blocks.append(f"{task}{class_counts(rows, task)}\n{aligned(lines)}")
    note = (
        "zero-shot: value (95 % interval, patients resampled); "
        "few-shot: mean ± sd over seeds, training patients drawn at random"
    )
    return "\n\n".join([*blocks, note])


def current_commit() -> str:
    """The git commit this code was read from, "+changes" if edited; "unknown" if not in git."""
    source = Path(__file__).resolve()

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(source.parent), *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=20, check=True
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", source.name)  # an installed copy is in nobody's history
        commit = git("rev-parse", "HEAD")[:12]
        edited = git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return UNKNOWN_COMMIT
    return f"{commit}+changes" if edited else commit


def describe_hardware() -> str:
    """The devices jax computes on, the processor and its cores, and the versions, in one line."""
    import jax

    kinds = Counter(device.device_kind for device in jax.devices())
    devices = ", ".join(f"{count} × {kind}" for kind, count in sorted(kinds.items()))
    return (
        f"{devices}; {_processor()}, {os.cpu_count()} cores; "
        f"Python {platform.python_version()}, jax {jax.__version__}"
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def _row(
    model: str,
    task: str,
    setting: str,
    metric: str,
    labels: Labels,
    spread: Interval,
) -> Row:
    positive = np.asarray(labels).astype(bool)
    return Row(
        model=model,
        task=task,
        setting=setting,
        metric=metric,
        value=spread.value,
        low=spread.low,
        high=spread.high,
        chance=chance(metric, positive),
        n_pos=int(positive.sum()),
        n_neg=int((~positive).sum()),
    )


def _decimal(value: float, digits: int) -> str:
    """A share as ".812": the form in which a column of shares is read fastest."""
    if math.isnan(value):
        return "–"
    text = f"{value:.{digits}f}"
    return text[1:] if text.startswith("0.") else text


def aligned(lines: Sequence[Sequence[str]], left: int = 1) -> str:
    """Columns of text, the first `left` of them flush left."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
