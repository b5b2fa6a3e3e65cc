"""The losses of the three stages, from a batch and the model."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor
from transformers import CLIPModel

from . import targets
from .attention import CrossAttention
from .losses import symmetric_loss
from .towers import encode_images, encode_texts, similarity_scale


class Losses(NamedTuple):
    """The loss, and what of it training can remove (it less its target's entropy)."""

    loss: Tensor
    excess: Tensor


def _against(logits: Tensor, image_to_text: Tensor, text_to_image: Tensor) -> Losses:
    loss = symmetric_loss(logits, image_to_text, text_to_image)
    floor = (targets.entropy(image_to_text) + targets.entropy(text_to_image)) / 2
    return Losses(loss, loss - floor)


def _from_attributes(logits: Tensor, a_v: Tensor, a_t: Tensor, norm: str) -> Losses:
    similarity = targets.morphological_similarity(a_v, a_t)
    rows, columns = targets.soft_rows(similarity, norm), targets.soft_rows(similarity.T, norm)
    return _against(logits, rows, columns)


def cleansing(
    model: CLIPModel, pixels: Tensor, sentences: Tensor, label: Tensor, *, target: str
) -> Losses:
    """Stage 1 (Eq. 2): every patient's own sentence, encoded once for each patient.

    pixels [B, S, S, 3], sentences int [2, n], label int [B]: which sentence is the patient's;
    `target`: `onehot` or `multi_positive`. The entropy of `onehot` is taken as that of
    `multi_positive`: patients with one sentence cannot be told apart.
    """
    v = encode_images(model, pixels)
    t = encode_texts(model, sentences[label])
    logits = similarity_scale(model) * v @ t.T
    alike = targets.multi_positive(label)
    wanted = {"onehot": targets.one_hot(len(label)), "multi_positive": alike}[target]
    loss = symmetric_loss(logits, wanted, wanted)
    return Losses(loss, loss - targets.entropy(alike))


def attunement(
    model: CLIPModel, pixels: Tensor, ids: Tensor, a_v: Tensor, a_t: Tensor, *, norm: str
) -> Losses:
    """Stage 2 (Eq. 3): pixels [B, S, S, 3], ids int [B, n], attributes [B, A] of either side.

    `norm`: a normalisation of `targets.soft_rows`, or `onehot` for the ablation without them.
    """
    logits = similarity_scale(model) * encode_images(model, pixels) @ encode_texts(model, ids).T
    if norm == "onehot":
        diagonal = targets.one_hot(len(pixels))
        return _against(logits, diagonal, diagonal)
    return _from_attributes(logits, a_v, a_t, norm)


def unification(
    model: CLIPModel,
    cross: CrossAttention,
    pixels: Tensor,
    image_mask: Tensor,
    ids: Tensor,
    text_mask: Tensor,
    union: Tensor,
    *,
    norm: str,
) -> Losses:
    """Stage 3 (Eq. 4, 5): pixels [B, K, S, S, 3], ids int [B, L, n], masks, unions [B, A]."""
    v, t = encode_images(model, pixels), encode_texts(model, ids)
    logits = similarity_scale(model) * cross(v, image_mask, t, text_mask)
    if norm == "onehot":
        diagonal = targets.one_hot(len(pixels))
        return _against(logits, diagonal, diagonal)
    return _from_attributes(logits, union, union, norm)
