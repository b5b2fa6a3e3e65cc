"""Stage 3's attention against truth: does a description look at the frames of its own polyp?

For each description of a patient, its attention over the patient's frames (Endo-CLIP, Eq. 4, text
queries) is a score of these frames; its AUROC says how often a frame of the description's polyp
gets more than another frame. Weights of one description sum to one, so that only frames of the
same patient are compared. Two questions: among all frames (is it a polyp at all?) and among frames
that show some polyp of the patient (is it the right one?), the second being what attention is for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from endoclip_jax.evaluation.statistics import DRAWS, Groups, Interval, auroc, ratio_interval

NO_ITEM, UNKNOWN_ITEM = -1, -2


@dataclass(frozen=True)
class Attended:
    """One description: AUROC of its weights, whether the highest is right, how often chance is."""

    auroc: float
    peak: float
    chance: float


@dataclass(frozen=True)
class AttentionQuality:
    """Means over descriptions, patients resampled; `peak_chance` is a blind choice's share."""

    auroc: Interval
    peak: Interval
    peak_chance: float
    descriptions: int


def attended(
    weights: Float[np.ndarray, "l k"],
    item_of_frame: Int[np.ndarray, " k"],
    *,
    among_polyps: bool,
) -> list[Attended]:
    """Each description that has a frame of its own and one of another kind to be told from.

    Args:
      weights: attention of l descriptions over k frames.
      item_of_frame: which description's polyp a frame shows; `NO_ITEM` none, `UNKNOWN_ITEM` not
        known (left out).
      among_polyps: only frames that show some polyp.
    """
    item_of_frame = np.asarray(item_of_frame)
    usable = item_of_frame >= 0 if among_polyps else item_of_frame != UNKNOWN_ITEM
    found = []
    for item, row in enumerate(np.asarray(weights, np.float64)[:, usable]):
        own = item_of_frame[usable] == item
        if own.any() and not own.all():
            highest = row == row.max()
            found.append(Attended(auroc(row, own), float(own[highest].mean()), float(own.mean())))
    return found


def attention_quality(
    found: Sequence[Attended], patients: Groups, *, seed: int, draws: int = DRAWS
) -> AttentionQuality:
    """The mean over descriptions, with intervals that resample the patients they are of."""
    one = np.ones(len(found))

    def mean(values: list[float]) -> Interval:
        return ratio_interval(np.asarray(values), one, patients, seed, draws)

    return AttentionQuality(
        mean([a.auroc for a in found]),
        mean([a.peak for a in found]),
        float(np.mean([a.chance for a in found])) if found else float("nan"),
        len(found),
    )
