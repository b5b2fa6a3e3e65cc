"""All that a report tells: the one thing a caller of `report.write_report` fills in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from endoclip_jax.evaluation.explorer import ShownPatient
from endoclip_jax.evaluation.frame_selection import SelectionQuality
from endoclip_jax.evaluation.results import ZERO_SHOT, Row
from endoclip_jax.evaluation.statistics import Interval

OURS = "Endo-CLIP"
BASELINE = "CLIP (trained here)"


@dataclass(frozen=True)
class Findings:
    """All that a report tells.

    rows:        every measured number, as in `results.json`.
    seconds:     phase → seconds, in the order in which they ran.
    card:        the data card, `dataset.json` as read.
    config:      the resolved configuration as text.
    synthetic:   the patients are drawn by a program, not seen by a doctor.
    figures:     PNG or JPEG bytes by name. Names in `wording.FIGURES` come with their explanation;
                 several of a kind are told apart after a colon ("attention:patient 3f9a"). Any
                 other name becomes a heading of its own, explained by `captions` alone.
    captions:    what to add to a figure's explanation, by the same name.
    selections:  quality of the frames kept, by name ("after round 2").
    differences: paired difference `ours` − `baseline` by (task, metric), zero-shot.
    patients:    what the record explorer shows.
    model:       the model card's facts, name and value.
    notes:       sentences the reader must know: what was left out, truncated or replaced.
    """

    rows: Sequence[Row]
    seed: int
    commit: str
    hardware: str
    seconds: Mapping[str, float]
    card: Mapping[str, Any]
    config: str
    synthetic: bool
    figures: Mapping[str, bytes] = field(default_factory=dict)
    captions: Mapping[str, str] = field(default_factory=dict)
    selections: Mapping[str, SelectionQuality] = field(default_factory=dict)
    differences: Mapping[tuple[str, str], Interval] = field(default_factory=dict)
    patients: Sequence[ShownPatient] = ()
    model: Sequence[tuple[str, str]] = ()
    notes: Sequence[str] = ()
    ours: str = OURS
    baseline: str = BASELINE


def headline_row(findings: Findings, model: str, task: str, metric: str) -> Row | None:
    wanted = (model, task, metric, ZERO_SHOT)
    for row in findings.rows:
        if (row.model, row.task, row.metric, row.setting) == wanted and row.value is not None:
            return row
    return None
