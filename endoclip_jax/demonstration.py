"""The demonstration's data: the embedded cohort, written as a hospital's records and prepared."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from endoclip_jax.shards.prepare import prepare
from endoclip_jax.synthetic.cohort import write_cohort
from endoclip_jax.training.progress import shown_count


@dataclass(frozen=True)
class DemonstrationData:
    """Where the demonstration's shards and its labelled set of polyps lie."""

    shards: Path
    polyps: Path


def demonstration_data(
    folder: Path,
    *,
    seed: int,
    train: int,
    validation: int,
    test: int,
    frames: int,
    polyps: int,
    side: int,
) -> DemonstrationData:
    """Draws the cohort into `folder` and prepares it, unless both are there already.

    Args:
      train, validation, test: examinations of each split, with `frames` frames each.
      polyps: further test polyps with one frame each, for malignancy.
      side: long side at which frames are stored, in pixels.
    """
    workers = os.cpu_count() or 1
    write_cohort(
        folder,
        seed=seed,
        examinations={"train": train, "validation": validation, "test": test},
        frames_per_case=frames,
        polyps=polyps,
        processes=workers,
        progress=shown_count("drawing the cohort"),
    )
    summary = prepare(
        folder / "records",
        folder / "shards",
        long_side=side,
        workers=workers,
        # Nobody's privacy hangs on it, and the same seed must hash patients alike on any machine.
        salt=hashlib.sha256(f"demonstration {seed}".encode()).digest(),
    )
    if not summary.already_done:
        print("\n".join(summary.lines()), flush=True)
    return DemonstrationData(folder / "shards", folder / "polyps")
