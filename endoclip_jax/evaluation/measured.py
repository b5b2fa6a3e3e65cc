"""The measured part of the report: tables, bars and figures of `Findings` as page parts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from endoclip_jax.evaluation.findings import Findings
from endoclip_jax.evaluation.page import (
    Bar,
    Bars,
    Bullets,
    Folded,
    Heading,
    Paragraph,
    Part,
    Picture,
    Table,
)
from endoclip_jax.evaluation.results import (
    HEADLINE_COLUMNS,
    ZERO_SHOT,
    Row,
    chance_levels,
    headline_cells,
    headline_numbers,
)
from endoclip_jax.evaluation.statistics import Interval
from endoclip_jax.evaluation.wording import CHOOSING_FRAMES, FIGURES, HOW_TO_READ, TASKS

PLACES = {
    "selection": ("selection_sheet", "score_histograms"),
    "results": (
        "roc_detection", "roc_malignancy", "calibration_detection", "calibration_malignancy",
    ),
    "features": ("tsne", "tsne_stages", "attributes"),
    "attention": ("attention",),
    "training": ("training_curves",),
}  # fmt: skip
"""The figures of each part of the report, by name; 'other' takes all further names."""


def results_parts(findings: Findings) -> tuple[Part, ...]:
    """The headline tables with their bars, how to read them, other rows and the curves."""
    models, cells = headline_cells(findings.rows)
    parts: list[Part] = []
    for task, question in TASKS.items():
        numbers = [n for n in headline_numbers(cells) if HEADLINE_COLUMNS[n][0] == task]
        if not numbers:
            continue
        parts.append(Heading(f"{task.capitalize()}: {question[0].lower()}{question[1:]}"))
        parts += _bars(findings, task)
        parts.append(_headline_table(findings, task, models, cells, numbers))
    if not parts:
        return ()
    parts += [
        Paragraph(
            "Zero-shot: the value above its 95 % interval (patients resampled). "
            "Percentages: few-shot, a linear classifier trained on that share of the test "
            "patients, mean over random draws ± standard deviation. A dash: not measured, or the "
            "model has no such setting.",
            note=True,
        ),
        Heading("How to read these numbers"),
        Bullets(tuple(sentence.format(baseline=findings.baseline) for sentence in HOW_TO_READ)),
    ]
    others = [row for row in findings.rows if (row.task, row.metric, row.setting) not in _COLUMNS]
    if others:
        parts.append(
            Folded("All other measurements", (all_rows(others, "Other prompts and settings"),))
        )
    return (*parts, *picture_parts(findings, "results"))


_COLUMNS = set(HEADLINE_COLUMNS)


def _headline_table(
    findings: Findings,
    task: str,
    models: Sequence[str],
    cells: Mapping[tuple[str, int], Row],
    numbers: Sequence[int],
) -> Table:
    shown = [m for m in models if any((m, n) in cells for n in numbers)]
    chances = chance_levels(findings.rows)
    rows: list[tuple[str | tuple[str, str], ...]] = [
        (model, *(_cell(cells.get((model, n))) for n in numbers)) for model in shown
    ]
    rows.append(("chance", *(f"{chances[n]:.3f}" if n in chances else "–" for n in numbers)))
    counted = next((r for r in findings.rows if r.task == task and r.n_pos is not None), None)
    counts = f": {counted.n_pos:,} positive, {counted.n_neg:,} negative" if counted else ""
    return Table(
        columns=(
            "Model",
            *(
                f"{HEADLINE_COLUMNS[n][1].upper()} {unbroken(HEADLINE_COLUMNS[n][2])}"
                for n in numbers
            ),
        ),
        rows=tuple(rows),
        caption=f"{task.capitalize()}{counts}",
        ours=tuple(i for i, model in enumerate(shown) if model == findings.ours),
        quiet=(len(shown),),
        numeric=True,
    )


def _bars(findings: Findings, task: str) -> list[Part]:
    found = [
        row
        for row in findings.rows
        if (row.task, row.metric, row.setting) == (task, "auroc", ZERO_SHOT)
        and row.value is not None
    ]
    bars = tuple(
        Bar(row.model, row.value, row.low, row.high, ours=row.model == findings.ours)
        for row in found
        if row.value is not None and row.low is not None and row.high is not None
    )
    return [Bars(f"{task.capitalize()}, zero-shot AUROC", bars, 0.5)] if bars else []


def selection_parts(findings: Findings) -> tuple[Part, ...]:
    """The frames kept against truth, with the sheets and histograms."""
    parts: list[Part] = []
    if findings.selections:
        parts += [
            Paragraph(CHOOSING_FRAMES),
            Table(
                columns=(
                    "", "kept frames with a polyp (precision)", "polyp frames kept (recall)",
                    "of all frames", "lift", "patients left without", "frames",
                ),
                rows=tuple(
                    (
                        name,
                        _percent_interval(q.precision),
                        _percent_interval(q.recall),
                        percent(q.prevalence),
                        "–" if math.isnan(q.lift) else f"{q.lift:.2f} ×",
                        percent(q.without_polyp_frame),
                        (f"{q.kept:,} of {q.frames:,}", f"{q.unknown:,} of unknown truth"),
                    )
                    for name, q in findings.selections.items()
                ),
                caption="The selection rule against truth",
                numeric=True,
            ),
            Paragraph(
                "Lift is precision over prevalence: 1 is blind choice. “Patients left without” "
                "have polyp frames, but none was kept. Frames of unknown truth are left out of "
                "every share.",
                note=True,
            ),
        ]  # fmt: skip
    return (*parts, *picture_parts(findings, "selection"))


def picture_parts(findings: Findings, place: str) -> tuple[Part, ...]:
    """The place's figures with heading and explanation; place "other" takes the unknown names."""
    known = {name for names in PLACES.values() for name in names}
    parts: list[Part] = []
    for name, data in findings.figures.items():
        kind, _, which = name.partition(":")
        if kind not in (PLACES[place] if place in PLACES else {kind} - known):
            continue
        heading, see, beware = FIGURES.get(kind, (kind, "", ""))
        added = findings.captions.get(name, "")
        parts += [
            Heading(f"{heading}: {which.strip()}" if which else heading),
            Picture(data, " ".join(filter(None, (see, added))), beware, alt=f"{heading}. {added}"),
        ]
    return tuple(parts)


def all_rows(rows: Sequence[Row], caption: str) -> Table:
    """Every given row as one wide table."""
    return Table(
        ("Model", "task", "setting", "metric", "value", "chance", "positive / negative"),
        tuple(
            (
                row.model,
                row.task,
                row.setting,
                row.metric,
                _cell(row),
                "–" if row.chance is None else f"{row.chance:.3f}",
                "–" if row.n_pos is None else f"{row.n_pos:,} / {row.n_neg or 0:,}",
            )
            for row in rows
        ),
        caption=caption,
        numeric=True,
    )


def _cell(row: Row | None) -> str | tuple[str, str]:
    if row is None or row.value is None:
        return "–"
    if row.low is None or row.high is None:
        return f"{row.value:.3f}"
    if row.is_few_shot:
        return f"{row.value:.3f}", f"± {(row.high - row.low) / 2:.3f}"
    return f"{row.value:.3f}", f"{row.low:.3f}–{row.high:.3f}"


def unbroken(words: str) -> str:
    """The words with spaces and hyphens at which no line may break."""
    return words.replace(" ", "\N{NO-BREAK SPACE}").replace("-", "\N{NON-BREAKING HYPHEN}")


def percent(share: float) -> str:
    """A share as "21 %", "–" if it is NaN."""
    return "–" if math.isnan(share) else unbroken(f"{100 * share:.0f} %")


def _percent_interval(value: Interval) -> tuple[str, str]:
    return percent(value.value), f"{percent(value.low)} to {percent(value.high)}"
