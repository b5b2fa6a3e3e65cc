"""Frame selection against truth: of the frames stage 1 keeps, how many show a polyp.

Truth of a frame as the index stores it: the polyp's number (≥ 0), −1 for no polyp, −2 for unknown.
Unknown frames compete for a place like all others, since the rule cannot know, but they are left
out of every figure and counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from endoclip_jax.data.selection import keep_top
from endoclip_jax.evaluation.results import Row, interval_row
from endoclip_jax.evaluation.statistics import Interval, ratio_interval

UNKNOWN = -2


@dataclass(frozen=True)
class SelectionQuality:
    """What was kept, against truth; `lift` is precision over prevalence, 1 = chance.

    `without_polyp_frame` is the share of the patients with a polyp frame of whom none was kept:
    their descriptions would be trained on background alone.
    """

    precision: Interval
    recall: Interval
    prevalence: float
    kept: int
    frames: int
    unknown: int
    patients: int
    without_polyp_frame: float

    @property
    def lift(self) -> float:
        return self.precision.value / self.prevalence if self.prevalence > 0 else float("nan")


def selection_quality(
    kept: Bool[np.ndarray, " f"],
    records: Int[np.ndarray, " f"],
    truth: Int[np.ndarray, " f"],
    *,
    seed: int,
) -> SelectionQuality:
    """Precision and recall of `kept` for the frames of the patients named in `records`."""
    kept, records, truth = np.asarray(kept, bool), np.asarray(records), np.asarray(truth)
    known = truth != UNKNOWN
    polyp = truth >= 0
    kept_known = kept & known
    hits = kept & polyp
    shown = np.unique(records[polyp])
    return SelectionQuality(
        precision=ratio_interval(hits, kept_known, records, seed),
        recall=ratio_interval(hits, polyp, records, seed),
        prevalence=float(polyp.sum() / known.sum()) if known.any() else float("nan"),
        kept=int(kept.sum()),
        frames=len(kept),
        unknown=int((~known).sum()),
        patients=len(np.unique(records)),
        without_polyp_frame=(
            1 - len(np.unique(records[hits])) / len(shown) if len(shown) else float("nan")
        ),
    )


def rule_quality(
    scores: Float[np.ndarray, " f"],
    records: Int[np.ndarray, " f"],
    truth: Int[np.ndarray, " f"],
    *,
    rho: float,
    rule: str = "per_patient",
    seed: int,
) -> tuple[SelectionQuality, Bool[np.ndarray, " f"]]:
    """The selection rule applied to any scored frames: its quality, and what it kept."""
    kept = keep_top(scores, records, rho, rule)
    return selection_quality(kept, records, truth, seed=seed), kept


def selection_rows(setting: str, quality: SelectionQuality, model: str) -> list[Row]:
    """Precision and recall of the kept frames as rows of `results.json`."""
    polyps = (
        round(quality.prevalence * (quality.frames - quality.unknown))
        if np.isfinite(quality.prevalence)
        else 0
    )
    negatives = quality.frames - quality.unknown - polyps
    return [
        interval_row(
            model, "selection", setting, metric, spread, n_pos=polyps, n_neg=negatives,
            chance=quality.prevalence if metric == "precision" else None,
        )
        for metric, spread in (("precision", quality.precision), ("recall", quality.recall))
    ]  # fmt: skip
