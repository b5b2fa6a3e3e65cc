"""Held-out patients of a run: which frames were kept, what stage 3 attends to, what is shown."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from endoclip_jax.data.loaders import scoring_batches
from endoclip_jax.evaluation.calibration import sigmoid
from endoclip_jax.evaluation.examinations import (
    FrameFeatures,
    PatientAttention,
    attention_within,
)
from endoclip_jax.evaluation.explorer import ShownFrame, ShownPatient
from endoclip_jax.evaluation.frame_selection import SelectionQuality
from endoclip_jax.evaluation.subjects import Subject
from endoclip_jax.pipeline.run import Run
from endoclip_jax.pipeline.scoring import score_frames
from endoclip_jax.shards.index import Index
from endoclip_jax.shards.reader import read_frame
from endoclip_jax.stages import cases
from endoclip_jax.training.embedding import embed_frames

HeldOut = Mapping[str, tuple[SelectionQuality, np.ndarray, np.ndarray, np.ndarray]]
"""After each round: quality, frame rows, their scores, and which were kept."""

_SHOWN = {"several polyps": 20, "one polyp": 10, "no polyp": 6}
_THUMBNAIL = 128  # pixels
_QUALITY = 80


def kept_attention(run: Run, subject: Subject, held_out: HeldOut) -> list[PatientAttention]:
    """Attention over the kept frames of held-out multi-polyp patients, as stage 3 was trained."""
    if subject.attention is None or not held_out:
        return []
    index = run.setting.index
    rows = cases.multi_polyp(index, index.rows("test"))
    _, scored, scores, kept = list(held_out.values())[-1]
    chosen = []
    for row in rows:
        mine = np.flatnonzero(kept & (index.frames["record"][scored] == row))
        best = mine[np.argsort(-scores[mine], kind="stable")][: run.config.stage3.max_images]
        chosen.append(np.sort(scored[best]))
    frames = np.concatenate([*chosen, np.zeros(0, np.int64)])
    batches = scoring_batches(index, frames, batch=64, image_size=run.setting.image_size)
    v, frames = embed_frames(subject.model, subject.params, batches)
    order = np.argsort(frames)
    features = FrameFeatures(v[order], frames[order])
    return attention_within(subject, run.setting.tokenizer, index, rows, features)


def shown_patients(
    run: Run,
    cleansed: Subject,
    held_out: HeldOut,
    attention: Sequence[PatientAttention],
) -> list[ShownPatient]:
    """Held-out patients for the record explorer: the first of each kind, in the data's order.

    Args:
      cleansed: stage 1's model, whose probabilities are shown.
    """
    if not held_out:
        return []
    index = run.setting.index
    rows = index.rows("test")
    _, scored, scores, kept = list(held_out.values())[-1]
    negative = cases.negatives(index, rows)[: _SHOWN["no polyp"]]
    frames = np.concatenate([*cases.all_frames(index, negative), np.zeros(0, np.int64)])
    more, more_frames = score_frames(run.setting, cleansed.params, frames)
    score_of = dict(zip(scored.tolist(), scores.tolist(), strict=True))
    score_of |= dict(zip(more_frames.tolist(), more.tolist(), strict=True))
    chosen = [
        *cases.multi_polyp(index, rows)[: _SHOWN["several polyps"]],
        *cases.single_polyp(index, rows)[: _SHOWN["one polyp"]],
        *negative,
    ]
    kept_frames = set(scored[kept].tolist())
    found = {patient.record: patient for patient in attention}
    return [
        _shown(index, int(row), score_of, kept_frames, cleansed.scale, found.get(int(row)))
        for row in chosen
    ]


def _shown(
    index: Index,
    row: int,
    score_of: Mapping[int, float],
    kept: set[int],
    scale: float,
    attention: PatientAttention | None,
) -> ShownPatient:
    frames = [int(frame) for frame in index.frame_rows(row) if int(frame) in score_of]
    shown = tuple(
        ShownFrame(
            thumbnail(read_frame(index, frame)),
            float(sigmoid(np.asarray([scale * score_of[frame]]))[0]),
            frame in kept,
            int(index.frames["polyp"][frame]),
        )
        for frame in frames
    )
    sentences = tuple(index.description(int(item)) for item in index.item_rows(row))
    name = bytes(index.records["patient"][row]).decode()[:8]
    attended = set() if attention is None else set(attention.frames.tolist())
    if attention is None or attended != kept & set(frames):  # more were kept than stage 3 takes
        return ShownPatient(name, shown, sentences)
    return ShownPatient(
        name, shown, sentences, reads=attention.image_to_text, looks=attention.text_to_image
    )


def thumbnail(jpeg: bytes) -> bytes:
    """The frame in its own proportions, small."""
    picture = Image.open(io.BytesIO(jpeg)).convert("RGB")
    picture.thumbnail((_THUMBNAIL, _THUMBNAIL))
    target = io.BytesIO()
    picture.save(target, "JPEG", quality=_QUALITY)
    return target.getvalue()
