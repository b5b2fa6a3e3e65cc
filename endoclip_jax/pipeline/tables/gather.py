"""From the evaluations of all rows and seeds to one table with its verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from endoclip_jax.evaluation import paper
from endoclip_jax.evaluation.results import ZERO_SHOT
from endoclip_jax.evaluation.statistics import Pair
from endoclip_jax.evaluation.tables import Cell, Column, Judged, Line, Match
from endoclip_jax.evaluation.verdicts import claim_test
from endoclip_jax.pipeline.tables.plan import Row
from endoclip_jax.pipeline.tables.scores import Scored

BySeed = Mapping[int, Scored]


@dataclass(frozen=True)
class Claim:
    """That one row scores better than another at a task, zero-shot AUROC.

    `paper_gain` names one of `paper.GAINS`.
    """

    claim: str
    task: str
    better: str
    worse: str
    paper_gain: str = ""


def line(row: Row, scored: BySeed, columns: Sequence[Column], marks: Sequence[str]) -> Line:
    """A row's cells over the seeds it was evaluated with; the paper's numbers where it has them."""
    found: dict[Column, list[float]] = {}
    chances: dict[Column, list[float]] = {}
    for _, one in sorted(scored.items()):
        for number in one.numbers:
            column = (number.task, number.metric, number.setting)
            if column in columns and number.value is not None:
                found.setdefault(column, []).append(number.value)
                if number.chance is not None:
                    chances.setdefault(column, []).append(number.chance)
    printed = (paper.TABLE_2 if row.paper == paper.FULL else paper.TABLE_1).get(row.paper, {})
    cells = {
        column: Cell(
            tuple(found[column]),
            chance=float(np.mean(chances[column])) if column in chances else None,
            paper=printed.get(column),
        )
        for column in columns
        if column in found
    }
    reasons = dict.fromkeys(one.missing for one in scored.values() if one.missing)
    why = "; ".join(reasons) if scored else "not run yet"
    printed_marks = tuple(row.marks.get(mark, "") for mark in marks)
    return Line(row.name, cells, printed_marks, why, tuple(sorted(scored)))


def judge(claim: Claim, scored: Mapping[str, BySeed], *, seed: int, draws: int) -> Judged:
    """The paired test of a claim over the seeds that both rows have."""
    better, worse = scored.get(claim.better, {}), scored.get(claim.worse, {})
    pairs = []
    for number in sorted(set(better) & set(worse)):
        a, b = better[number].scores.get(claim.task), worse[number].scores.get(claim.task)
        if a is not None and b is not None:
            pairs.append(_pair(a, b))
    gain = paper.GAINS[claim.paper_gain] if claim.paper_gain else None
    test = claim_test("auroc", pairs, seed, draws) if pairs else None
    column = (claim.task, "auroc", ZERO_SHOT)
    return Judged(claim.claim, claim.better, claim.worse, column, test, gain)


def _pair(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> Pair:
    if not (np.array_equal(a["groups"], b["groups"]) and np.array_equal(a["labels"], b["labels"])):
        raise ValueError("two rows of one seed were scored on different frames")
    return Pair(a["scores"], b["scores"], a["labels"], a["groups"])


def matches(rows: Sequence[Row], scored: Mapping[str, BySeed]) -> tuple[Match, ...]:
    """Match rates on held-out patients, of the rows that took them."""
    return tuple(
        Match(row.name, f"{name} pairs of held-out patients", tuple(values))
        for row in rows
        for name in ("true", "shuffled")
        if (
            values := [
                one.matches[name] for _, one in sorted(scored[row.name].items()) if one.matches
            ]
        )
    )


def notes(scored: Mapping[str, BySeed]) -> tuple[str, ...]:
    """What evaluations had to say, each thing once."""
    said = [note for rows in scored.values() for one in rows.values() for note in one.notes]
    return tuple(dict.fromkeys(said))
