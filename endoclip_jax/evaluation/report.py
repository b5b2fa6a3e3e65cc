"""What the report says: findings in, one `index.html` out that a clinician-scientist can judge.

`write_report` is all that a caller needs; `compose_sections` is its middle, for a page with
sections of its own. Numbers come from `Findings` alone, and every figure says what is to be seen in
it and what must not be concluded from it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from endoclip_jax.evaluation.findings import BASELINE, OURS, Findings, headline_row
from endoclip_jax.evaluation.measured import (
    all_rows,
    percent,
    picture_parts,
    results_parts,
    selection_parts,
)
from endoclip_jax.evaluation.page import (
    Bullets,
    Card,
    Folded,
    Heading,
    Paragraph,
    Part,
    Patients,
    Preformatted,
    Section,
    Table,
    write_page,
)
from endoclip_jax.evaluation.results import UNKNOWN_COMMIT, Row
from endoclip_jax.evaluation.wording import (
    MEANING_OF_MALIGNANT,
    MEANING_OF_SYNTHETIC,
    MODEL_CARD,
    PAIRS,
    READING_PATIENTS,
    TASKS,
    WHAT_WAS_DONE,
)

__all__ = ["BASELINE", "OURS", "Findings", "compose_sections", "write_report"]

_PHASE_NOTE = "Wall-clock time on this machine, shared with whatever else ran on it."


def write_report(
    path: Path, findings: Findings, *, title: str = "Endo-CLIP: what this run learnt"
) -> Path:
    """Write the whole report to `path` (…/report/index.html) and return it.

    Example::

        findings = Findings(
            rows=rows, seed=0, commit=current_commit(), hardware=describe_hardware(),
            seconds={"cohort": 41.0, "stage 1": 210.5, "evaluation": 30.2},
            card=index.card, config=str(config), synthetic=True,
            figures={
                "tsne": png_bytes(tsne_scatter(features, malignant, seed=0)),
                "selection_sheet": jpeg_bytes(frame_sheet(...)),
                "attention:patient 3f9a": jpeg_bytes(attention_map(...)),
            },
            selections={"after round 1": first, "after round 2": second},
            differences={("detection", "auroc"): difference_interval("auroc", ...)},
            notes=["3 frames could not be decoded and were replaced by their neighbours."],
        )
        write_report(workdir / "report" / "index.html", findings)
    """
    return write_page(
        path,
        title=title,
        subtitle=_provenance(findings),
        warnings=_warnings(findings),
        cards=_cards(findings),
        sections=compose_sections(findings),
        footer=(
            "endoclip_jax, after “Endo-CLIP: Progressive Self-Supervised Pre-training on Raw "
            "Colonoscopy Records”. Research software, not a medical device; not for diagnosis. "
            f"{_provenance(findings)}."
        ),
    )


def compose_sections(findings: Findings) -> tuple[Section, ...]:
    """The report's sections in reading order; one without content is left out."""
    candidates = (
        Section("In short", _in_short(findings)),
        Section("Results", results_parts(findings)),
        Section("Choosing frames", selection_parts(findings)),
        Section("Patients", _patients(findings)),
        Section("What the features look like", picture_parts(findings, "features")),
        Section("Attention", picture_parts(findings, "attention")),
        Section("Training and time", _training(findings)),
        Section("Further figures", picture_parts(findings, "other")),
        Section("Model card", _model_card(findings)),
        Section("Data card", _data(findings)),
        Section("Reproduce it", _reproduction(findings)),
    )
    return tuple(section for section in candidates if section.parts)


def _warnings(findings: Findings) -> list[tuple[str, str]]:
    warnings = [
        ("Research software, not a medical device.", "Nothing here may guide a patient's care.")
    ]
    if findings.synthetic:
        warnings.append(("Synthetic data.", MEANING_OF_SYNTHETIC))
    warnings.append(("What “malignancy” means.", MEANING_OF_MALIGNANT))
    return warnings


def _cards(findings: Findings) -> list[Card]:
    cards = []
    for task, words in (("detection", "Polyp detection"), ("malignancy", "Malignancy")):
        row = headline_row(findings, findings.ours, task, "auroc")
        if row is None:
            continue
        other = headline_row(findings, findings.baseline, task, "auroc")
        against = f"{findings.baseline} {other.value:.3f}; " if other else ""
        cards.append(Card(f"{words}, AUROC", f"{row.value:.3f}", f"{against}chance 0.500"))
    for name, quality in list(findings.selections.items())[-1:]:
        if math.isnan(quality.precision.value):
            continue
        cards.append(
            Card(
                f"Kept frames that show a polyp, {name}",
                percent(quality.precision.value),
                f"of all frames: {percent(quality.prevalence)}",
            )
        )
    if findings.seconds:
        cards.append(
            Card("Time, all phases", _minutes(sum(findings.seconds.values())), findings.hardware)
        )
    return cards


def _in_short(findings: Findings) -> tuple[Part, ...]:
    parts: list[Part] = [Paragraph(WHAT_WAS_DONE)]
    parts += [
        Paragraph(text, lead=lead)
        for task, lead in (("detection", "Finding polyps."), ("malignancy", "Judging polyps."))
        if (text := _verdict(findings, task))
    ]
    last = list(findings.selections.items())[-1:]
    for name, quality in last:
        if math.isnan(quality.precision.value):
            continue
        parts.append(
            Paragraph(
                f"Of the frames kept {name} from {quality.patients:,} positive examinations "
                f"{percent(quality.precision.value)} ({percent(quality.precision.low)} to "
                f"{percent(quality.precision.high)}) show a polyp, against "
                f"{percent(quality.prevalence)} of all their frames: {quality.lift:.1f} times as "
                "many as blind choice would keep.",
                lead="Choosing frames.",
            )
        )
    if findings.notes:
        parts += [Heading("To be known when reading on"), Bullets(tuple(findings.notes))]
    return tuple(parts)


def _verdict(findings: Findings, task: str) -> str:
    """The task's headline in words: the value, what it means, whether the baseline is beaten."""
    row = headline_row(findings, findings.ours, task, "auroc")
    if row is None or row.value is None:
        return ""
    pair, winner = PAIRS[task]
    text = (
        f"{findings.ours} reaches an AUROC of {row.value:.3f}{_between(row)} without one "
        f"labelled frame: of {pair}, it scores {winner} higher {100 * row.value:.0f} times in 100; "
        "chance is 50."
    )
    other = headline_row(findings, findings.baseline, task, "auroc")
    if other is not None and other.value is not None:
        text += f" {findings.baseline}, on the same patients, reaches {other.value:.3f}."
    difference = findings.differences.get((task, "auroc"))
    if difference is not None:
        judged = (
            "more than the choice of test patients explains"
            if difference.low > 0
            else "so it does worse than the baseline"
            if difference.high < 0
            else "which includes zero: undecided"
        )
        text += (
            f" The paired difference is {_signed(difference.value)} (95 % interval "
            f"{_signed(difference.low)} to {_signed(difference.high)}), {judged}. The interval "
            "does not cover the luck of training: for that, run other seeds."
        )
    return text


def _patients(findings: Findings) -> tuple[Part, ...]:
    if not findings.patients:
        return ()
    return Paragraph(READING_PATIENTS), Patients(tuple(findings.patients))


def _model_card(findings: Findings) -> tuple[Part, ...]:
    if not findings.model:
        return ()
    headlines = tuple(
        (f"{task}, zero-shot AUROC", f"{row.value:.3f}{_between(row)}")
        for task in TASKS
        if (row := headline_row(findings, findings.ours, task, "auroc")) and row.value is not None
    )
    return (
        Table(("Model", "value"), (*tuple(findings.model), *headlines), caption="What it is"),
        *(
            part
            for heading, sentences in MODEL_CARD.items()
            for part in (Heading(heading), Bullets(sentences))
        ),
    )


def _training(findings: Findings) -> tuple[Part, ...]:
    parts = list(picture_parts(findings, "training"))
    total = sum(findings.seconds.values())
    if total > 0:
        rows = [
            (phase, _duration(spent), f"{100 * spent / total:.0f} %")
            for phase, spent in findings.seconds.items()
        ]
        parts += [
            Table(
                ("Phase", "time", "share"),
                (*rows, ("all phases", _duration(total), "100 %")),
                caption="Where the time went",
                ours=(len(rows),),
                numeric=True,
            ),
            Paragraph(f"{_PHASE_NOTE} {findings.hardware}.", note=True),
        ]
    return tuple(parts)


def _data(findings: Findings) -> tuple[Part, ...]:
    if not findings.card:
        return ()
    source = (
        "a synthetic cohort, drawn by this package from published statistics of colonoscopy"
        if findings.synthetic
        else "the records given to the run"
    )
    simple = [(key, value) for key, value in _flat(findings.card) if not isinstance(value, list)]
    return (
        Paragraph(
            f"The data is {source}. Patients are never in two of the parts train, validation and "
            "test. What follows is the data card as stored beside it."
        ),
        Table(
            ("Entry", "value"),
            tuple((key, _plain(value)) for key, value in simple if len(_plain(value)) <= 200),
            caption="Data card",
        ),
        Folded(
            "The whole card",
            (Preformatted(json.dumps(findings.card, indent=1, ensure_ascii=False, default=str)),),
        ),
    )


def _reproduction(findings: Findings) -> tuple[Part, ...]:
    commit = findings.commit
    if commit == UNKNOWN_COMMIT:
        commit = "unknown: the program did not run from a git checkout"
    elif commit.endswith("+changes"):
        commit = f"{commit}: the source had edits that this commit does not hold"
    parts: list[Part] = [
        Table(
            ("What", "value"),
            (("seed", str(findings.seed)), ("commit", commit), ("hardware", findings.hardware)),
        ),
        Folded("Every setting of this run", (Preformatted(findings.config),)),
    ]
    if findings.rows:
        every = all_rows(findings.rows, "Every row of results.json")
        parts.append(Folded("Every number of this report", (every,)))
    return tuple(parts)


def _between(row: Row) -> str:
    if row.low is None or row.high is None:
        return ""
    return f" (95 % interval {row.low:.3f} to {row.high:.3f})"


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if seconds < 10:
        return f"{seconds:.1f} s"
    if whole < 120:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 120:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def _minutes(seconds: float) -> str:
    return _duration(seconds) if seconds < 120 else f"{seconds / 60:.0f} min"


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def _flat(card: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """The card's entries in order, nested keys joined by " / "."""
    entries: list[tuple[str, Any]] = []
    for key, value in card.items():
        name = f"{prefix}{str(key).replace('_', ' ')}"
        entries += _flat(value, f"{name} / ") if isinstance(value, Mapping) else [(name, value)]
    return entries


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _provenance(findings: Findings) -> str:
    return f"Seed {findings.seed}, commit {findings.commit}, {findings.hardware}"
