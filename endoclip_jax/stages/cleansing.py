"""Stage 1, cleansing: two rounds of contrast with two sentences, then a selection of frames.

Endo-CLIP, section 2.2 and Eq. 2. Round 1 draws from all frames of a patient; round 2 draws the
positives from the frames that round 1's scores kept, starting from round 1's weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from endoclip_jax.data.prompts import SENTENCES
from endoclip_jax.data.selection import Selection, keep_top
from endoclip_jax.objectives.dense import two_sentence_loss
from endoclip_jax.shards.index import Index
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

Scored = tuple[np.ndarray, np.ndarray]  # scores, and the frame rows they belong to


def round_name(number: int) -> str:
    """What a round is called, as is its folder."""
    return f"stage1_round{number}"


def cleansing(
    setting: Setting,
    *,
    round_number: int,
    selection: Selection | None,
    global_batch: int,
    temperature: str | float,
    rho: float,
    score: Callable[[Any, np.ndarray], Scored] | None = None,
) -> PreparedStage:
    """One round of stage 1.

    Args:
      selection: kept frames of the positives (round 2), or None: all frames (round 1).
      temperature, rho: as configured; `rho` is used to watch held-out patients.
      score: by CLIP's parameters, those of some frame rows; without it held-out patients have a
        loss and no more.

    One-hot (Eq. 2) and multi-positive targets are the same function here, in value and gradients,
    since the two sentences are encoded once for the whole batch.
    """
    index, model = setting.index, setting.model
    sentences, _ = setting.tokenizer(list(SENTENCES))
    notes: list[str] = []

    def drawn(split: str) -> tuple[np.ndarray, list[np.ndarray]]:
        rows = cases.training_rows(index, split)
        frames = cases.all_frames(index, rows)
        if selection is not None:
            positive = np.asarray(index.records["has_polyp"][rows], bool)
            frames = [
                selection.kept_frames(int(row)) if is_positive else own
                for row, own, is_positive in zip(rows, frames, positive, strict=True)
            ]
        return cases.with_frames(rows, frames)

    batches, validation = split_loaders(
        setting, "stage1", "patients", drawn, global_batch, f"stage1/round{round_number}", notes
    )
    held_out = cases.training_rows(index, setting.validation_split)

    def complete(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        label = np.asarray(index.records["has_polyp"][batch["record"]], np.int32)
        return {**pictures(batch), "label": label, "valid": batch["valid"]}

    def embed(params: Any, batch: Batch) -> jax.Array:
        return encode_images(model, params, batch["image"])

    def contrast(params: Any, features: Any, batch: Batch) -> tuple[jax.Array, Terms]:
        return two_sentence_loss(
            features,
            encode_texts(model, params, sentences),
            batch["label"],
            log_scale(params, temperature),
            valid=batch["valid"],
        )

    def validate(params: Any) -> dict[str, float]:
        if validation is None or score is None:
            return {}
        scores, frames = score(params["clip"], _frames_of(index, held_out))
        return {"patient_auroc": patient_auroc(index, scores, frames, rho)}

    return PreparedStage(
        round_name(round_number),
        batches,
        validation,
        complete,
        embed,
        contrast,
        validate,
        notes,
        seen(setting),
    )


def select_frames(
    setting: Setting,
    score: Callable[[np.ndarray], Scored],
    *,
    rho: float,
    rule: str,
    round_number: int,
    checkpoint: str,
    weights: str,
) -> Selection:
    """Scores every frame of the positive patients outside the test split and keeps the top ones.

    Args:
      score: scores of frame rows, by the parameters of the round.
      checkpoint, weights: the name and the checksum of these parameters, for the meta.
    """
    index = setting.index
    splits = ["all"] if setting.train_split == "all" else [setting.train_split]
    if setting.train_split != "all":
        splits.append(setting.validation_split)
    rows = np.unique(np.concatenate([cases.training_rows(index, split) for split in splits]))
    frames = _frames_of(index, cases.positives(index, rows))
    scores, scored = score(frames)
    records = np.asarray(index.frames["record"][scored], np.int64)
    return Selection.create(
        index,
        frames=scored,
        scores=scores,
        kept=keep_top(scores, records, rho, rule),
        meta={
            "rho": rho,
            "rule": rule,
            "round": round_number,
            "checkpoint": checkpoint,
            "weights": weights,
            "unreadable_frames": int(len(frames) - len(scored)),
        },
    )


def patient_auroc(index: Index, scores: np.ndarray, frames: np.ndarray, rho: float) -> float:
    """How well a patient's mean score over the kept fraction of frames tells positive patients.

    The only label a hospital's own data has is the patient's, so this is what validation can use.
    NaN where one class is missing.
    """
    records = np.asarray(index.frames["record"][frames], np.int64)
    kept = keep_top(scores, records, rho, "per_patient")
    patients, where = np.unique(records[kept], return_inverse=True)
    means = np.bincount(where, weights=scores[kept]) / np.bincount(where)
    positive = np.asarray(index.records["has_polyp"][patients], bool)
    if positive.all() or not positive.any():
        return float("nan")
    above = means[positive][:, None] - means[~positive][None, :]
    return float(((above > 0) + 0.5 * (above == 0)).mean())


def _frames_of(index: Index, rows: np.ndarray) -> np.ndarray:
    frames = cases.all_frames(index, rows)
    return np.concatenate(frames) if frames else np.zeros((0,), np.int64)
