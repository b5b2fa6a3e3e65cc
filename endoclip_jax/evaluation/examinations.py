"""What only prepared shards allow: searching texts and images, and attention within a patient.

A labelled frame has a class; an examination in the shards also has its sentences, and, where the
truth of its frames is known, which polyp each frame shows and which sentence describes that polyp.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from endoclip_jax.data.tokenizer import Tokenizer
from endoclip_jax.evaluation.attention_truth import (
    NO_ITEM,
    UNKNOWN_ITEM,
    AttentionQuality,
    attended,
    attention_quality,
)
from endoclip_jax.evaluation.retrieval import Retrieval, image_to_text, text_to_image
from endoclip_jax.evaluation.subjects import Subject
from endoclip_jax.models.cross_attention import AttentionWeights, CrossAttention
from endoclip_jax.records.manifest import NO_POLYP
from endoclip_jax.shards.index import Index

_RECORDS = 32  # in one call of the attention


@dataclass(frozen=True)
class FrameFeatures:
    """Features `[n, d]` of frame rows, ascending."""

    features: np.ndarray
    frames: np.ndarray

    def of(self, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Features of those of `frames` that there are, and which these are."""
        there = frames[np.isin(frames, self.frames)]
        return self.features[np.searchsorted(self.frames, there)], there


@dataclass(frozen=True)
class PatientAttention:
    """Stage 3's attention within one record.

    Attributes:
      record: its row.
      frames: rows of its k frames.
      items: rows of its l items.
      text_to_image: [l, k], rows sum to one.
      image_to_text: [k, l], rows sum to one.
    """

    record: int
    frames: np.ndarray
    items: np.ndarray
    text_to_image: np.ndarray
    image_to_text: np.ndarray


def described_polyps(index: Index, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(frame, item) rows of each polyp whose most indicative frame and description are known."""
    polyps = index.polyps
    known = np.isin(polyps["record"], rows) & (polyps["frame"] >= 0) & (polyps["item"] >= 0)
    chosen = polyps[np.flatnonzero(known)]
    items = index.records["first_item"][chosen["record"]] + chosen["item"]
    return np.asarray(chosen["frame"], np.int64), np.asarray(items, np.int64)


def retrieval(
    subject: Subject,
    tokenizer: Tokenizer,
    index: Index,
    rows: np.ndarray,
    features: FrameFeatures,
    *,
    seed: int,
    draws: int,
) -> dict[str, Retrieval]:
    """Both directions over the described polyps of some records; empty where there are none."""
    frames, items = described_polyps(index, rows)
    readable = np.isin(frames, features.frames)
    frames, items = frames[readable], items[readable]
    if len(frames) < 2:
        return {}
    v = features.features[np.searchsorted(features.frames, frames)]
    sentences = [index.description(int(item)) for item in items]
    distinct, where = np.unique(sentences, return_inverse=True)
    t = subject.texts(tokenizer, distinct.tolist())[where]
    patients = np.asarray(index.records["patient"][index.frames["record"][frames]])
    similarity = subject.similarity(v, t)
    bits = np.asarray(index.items["bits_text"][items])
    return {
        name: search(similarity, sentences, bits, patients, seed=seed, draws=draws)
        for name, search in (("image to text", image_to_text), ("text to image", text_to_image))
    }


def attention_within(
    subject: Subject,
    tokenizer: Tokenizer,
    index: Index,
    rows: Sequence[int] | np.ndarray,
    features: FrameFeatures,
) -> list[PatientAttention]:
    """Attention of each record that has at least two items and two embedded frames.

    Weights of frames that are left out (unreadable, or of unknown truth) would have made the others
    smaller in proportion, and changed no order.
    """
    if subject.attention is None:
        return []
    chosen: list[tuple[int, np.ndarray, np.ndarray, np.ndarray]] = []
    for row in rows:
        items = index.item_rows(int(row))
        v, frames = features.of(index.frame_rows(int(row)))
        if len(items) > 1 and len(frames) > 1:
            chosen.append((int(row), v, frames, items))
    if not chosen:
        return []
    every = np.concatenate([items for *_, items in chosen])
    sentences = [index.description(int(item)) for item in every]
    texts = np.split(
        subject.texts(tokenizer, sentences), np.cumsum([len(items) for *_, items in chosen])[:-1]
    )
    most_frames = max(len(frames) for _, _, frames, _ in chosen)
    most_items = max(len(items) for *_, items in chosen)
    found = []
    for start in range(0, len(chosen), _RECORDS):
        part = chosen[start : start + _RECORDS]
        v, v_mask = _padded([v for _, v, _, _ in part], most_frames)
        t, t_mask = _padded(texts[start : start + _RECORDS], most_items)
        module, params = subject.attention
        weights = jax.tree.map(np.asarray, _attention(module)(params, v, v_mask, t, t_mask))
        for place, (row, _, frames, items) in enumerate(part):
            k, n = len(frames), len(items)
            text_to_image = weights.text_to_image[place, :n, :k]
            image_to_text = weights.image_to_text[place, :k, :n]
            found.append(PatientAttention(row, frames, items, text_to_image, image_to_text))
    return found


def items_shown(index: Index, record: int, frames: np.ndarray) -> np.ndarray:
    """Which of the record's items each frame shows; `NO_ITEM` none, `UNKNOWN_ITEM` not known."""
    shown = np.asarray(index.frames["polyp"][frames], np.int64)
    items = np.full(len(frames), UNKNOWN_ITEM)
    items[shown == NO_POLYP] = NO_ITEM
    described = np.asarray(index.polyps["item"][index.polyp_rows(record)], np.int64)
    polyp = shown >= 0
    items[polyp] = described[shown[polyp]]
    items[polyp & (items < 0)] = UNKNOWN_ITEM
    return items


def attention_against_truth(
    index: Index, found: Sequence[PatientAttention], *, seed: int, draws: int
) -> dict[str, AttentionQuality]:
    """How well descriptions find their polyp's frames: among all, and among frames with a polyp."""
    qualities = {}
    for name, among_polyps in (("among all frames", False), ("among frames with a polyp", True)):
        judged, patients = [], []
        for patient in found:
            items = items_shown(index, patient.record, patient.frames)
            each = attended(patient.text_to_image, items, among_polyps=among_polyps)
            judged += each
            patients += [bytes(index.records["patient"][patient.record])] * len(each)
        if judged:
            qualities[name] = attention_quality(
                judged, np.asarray(patients), seed=seed, draws=draws
            )
    return qualities


@functools.lru_cache(maxsize=8)
def _attention(module: CrossAttention) -> Callable[..., AttentionWeights]:
    return jax.jit(
        lambda params, v, v_mask, t, t_mask: module.apply(
            {"params": params}, v, v_mask, t, t_mask, method="attention_weights"
        )
    )


def _padded(arrays: Sequence[np.ndarray], length: int) -> tuple[Any, Any]:
    """[_RECORDS, length, d] and its mask: one shape for every call."""
    padded = np.zeros((_RECORDS, length, arrays[0].shape[1]), np.float32)
    mask = np.zeros((_RECORDS, length), bool)
    for place, array in enumerate(arrays):
        padded[place, : len(array)], mask[place, : len(array)] = array, True
    return padded, mask
