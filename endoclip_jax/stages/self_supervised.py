"""What the baselines without text share: one frame of every patient, seen several times."""

from __future__ import annotations

from functools import partial

import numpy as np

from endoclip_jax.data.crops import Crops, CropsView
from endoclip_jax.data.loaders import Batches, frame_batches
from endoclip_jax.stages import cases
from endoclip_jax.stages.stage import Setting, split_loaders


def loaders_of_crops(
    setting: Setting, name: str, global_batch: int, crops: Crops, notes: list[str]
) -> tuple[Batches, Batches | None]:
    """Training and validation batches of `CropsView` over all frames of all patients.

    Args:
      name: the stage's, and its section's in the configuration.
    """

    def drawn(split: str) -> tuple[np.ndarray, list[np.ndarray]]:
        rows = cases.training_rows(setting.index, split)
        return cases.with_frames(rows, cases.all_frames(setting.index, rows))

    make = partial(frame_batches, make_view=partial(CropsView, crops=crops))
    return split_loaders(setting, name, "patients", drawn, global_batch, name, notes, make)
