"""Stage 2, attunement: one kept frame and the one description of a single-polyp patient.

Endo-CLIP, section 2.3 and Eq. 3: the target is the morphological similarity of the nine aspects.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from endoclip_jax.data.selection import Selection
from endoclip_jax.objectives.dense import ContrastiveLoss, contrastive_loss
from endoclip_jax.objectives.soft_targets import parse_target_norm
from endoclip_jax.stages import cases
from endoclip_jax.stages.noise import NO_NOISE, ExtractionNoise
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


def attunement(
    setting: Setting,
    *,
    selection: Selection,
    global_batch: int,
    target: str,
    target_norm: str,
    temperature: str | float,
    contrastive: ContrastiveLoss = contrastive_loss,
    noise: ExtractionNoise = NO_NOISE,
) -> PreparedStage:
    """Stage 2 on the frames that round 2 of stage 1 kept.

    Args:
      target: `morphology` (Eq. 3), or `onehot`, the paper's ablation "without MC".
      target_norm: how a row of similarities becomes a target: `l1`, `none`, `power(p)`,
        `softmax(tau)`.
      contrastive: the dense loss, or another form of the same function.
      noise: errors added to the attributes.
    """
    index, model = setting.index, setting.model
    notes: list[str] = []
    norm = parse_target_norm(target_norm)
    everyone = cases.single_polyp(index, cases.training_rows(index, "all"))
    items = np.asarray([index.item_rows(int(row))[0] for row in everyone], np.int64)
    ids, truncated = setting.tokenizer([index.description(int(item)) for item in items])
    attributes = {
        name: np.asarray(noise.applied(index, items, np.asarray(index.items[bits][items])))
        for name, bits in (("a_v", "bits_image"), ("a_t", "bits_text"))
    }
    if noise.adds:
        notes.append(str(noise))
    if truncated:
        notes.append(f"{truncated} of {len(items)} descriptions are cut at 77 tokens")

    def drawn(split: str) -> tuple[np.ndarray, list[np.ndarray]]:
        rows = cases.single_polyp(index, cases.training_rows(index, split))
        return cases.with_frames(rows, [selection.kept_frames(int(row)) for row in rows])

    batches, validation = split_loaders(
        setting, "stage2", "single-polyp patients", drawn, global_batch, "stage2", notes
    )

    def complete(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        where = cases.position_of(everyone, batch["record"])
        return {
            **pictures(batch),
            "ids": ids[where],
            "a_v": attributes["a_v"][where].astype(np.float32),
            "a_t": attributes["a_t"][where].astype(np.float32),
            "valid": batch["valid"],
        }

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
            batch["a_v"],
            batch["a_t"],
            target=target,
            target_norm=norm,
            valid=batch["valid"],
        )

    return PreparedStage(
        "stage2", batches, validation, complete, embed, contrast,
        notes=notes, on_device=seen(setting),
    )  # fmt: skip
