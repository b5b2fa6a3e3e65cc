"""The baseline `CLIP (trained here)`: what plain image-text contrast makes of the same patients.

One frame of a patient, unfiltered; the text is the examination's descriptions joined and cut at
77 tokens, or the background sentence where the report describes no polyp; one-hot targets.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from endoclip_jax.data.prompts import BACKGROUND
from endoclip_jax.objectives.dense import ContrastiveLoss, contrastive_loss
from endoclip_jax.stages import cases
from endoclip_jax.stages.stage import (
    Batch,
    PreparedStage,
    Setting,
    Terms,
    encode_images,
    encode_texts,
    pictures,
    seen,
    split_loaders,
)
from endoclip_jax.stages.temperature import log_scale


def joined(
    setting: Setting,
    *,
    global_batch: int,
    temperature: str | float,
    contrastive: ContrastiveLoss = contrastive_loss,
) -> PreparedStage:
    """Plain CLIP on the same patients, with the same loader, loop and optimizer.

    Args:
      contrastive: the dense loss, or another form of the same function.
    """
    index, model = setting.index, setting.model
    notes: list[str] = []
    everyone = cases.training_rows(index, "all")
    texts = [
        " ".join(index.description(int(item)) for item in index.item_rows(int(row))) or BACKGROUND
        for row in everyone
    ]
    ids, truncated = setting.tokenizer(texts)
    if truncated:
        notes.append(f"{truncated} of {len(texts)} joined texts are cut at 77 tokens")

    def drawn(split: str) -> tuple[np.ndarray, list[np.ndarray]]:
        rows = cases.training_rows(index, split)
        return cases.with_frames(rows, cases.all_frames(index, rows))

    batches, validation = split_loaders(
        setting, "clip", "patients", drawn, global_batch, "clip", notes
    )

    def complete(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        where = cases.position_of(everyone, batch["record"])
        return {**pictures(batch), "ids": ids[where], "valid": batch["valid"]}

    def embed(params: Any, batch: Batch) -> tuple[jax.Array, jax.Array]:
        return (
            encode_images(model, params, batch["image"]),
            encode_texts(model, params, batch["ids"]),
        )

    def contrast(params: Any, features: Any, batch: Batch) -> tuple[jax.Array, Terms]:
        v, t = features
        return contrastive(
            v,
            t,
            log_scale(params, temperature),
            valid=batch["valid"],
        )

    return PreparedStage(
        "clip", batches, validation, complete, embed, contrast,
        notes=notes, on_device=seen(setting),
    )  # fmt: skip
