"""Stage 3, unification: all kept frames and all descriptions of a multi-polyp patient.

Endo-CLIP, section 2.4, Eq. 4 and 5: cross-attention between a patient's frames and sentences,
patient-level vectors, and targets from the union of the patient's attributes.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from endoclip_jax.data.loaders import Batches, patient_batches
from endoclip_jax.data.selection import Selection
from endoclip_jax.models.cross_attention import CrossAttention
from endoclip_jax.objectives.dense import ContrastiveLoss, contrastive_loss, similarity_loss
from endoclip_jax.objectives.soft_targets import parse_target_norm
from endoclip_jax.records.attributes import NUM_BITS, aspect_slice
from endoclip_jax.shards.index import Index
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


def unification(
    setting: Setting,
    cross_attention: CrossAttention,
    *,
    selection: Selection,
    global_batch: int,
    target: str,
    target_norm: str,
    temperature: str | float,
    max_images: int,
    max_texts: int,
    include_single: bool,
    contrastive: ContrastiveLoss = contrastive_loss,
    noise: ExtractionNoise = NO_NOISE,
) -> PreparedStage:
    """Stage 3 on the frames that round 2 of stage 1 kept.

    Args:
      cross_attention: the module; its mode decides how the patient vectors are formed.
      max_images, max_texts: frames and descriptions of a patient beyond these are not seen: frames
        are sampled anew each epoch, of the descriptions the largest lesions' stay.
      include_single: also takes single-polyp patients.
      contrastive: the dense loss, or another form of the same function; pairwise attention, whose
        similarity is no product of two sets of vectors, has the dense one alone.
      noise: errors added to the attributes before their union.
    """
    index, model = setting.index, setting.model
    notes: list[str] = []
    norm = parse_target_norm(target_norm)

    def kind(split: str) -> np.ndarray:
        rows = cases.training_rows(index, split)
        multi = cases.multi_polyp(index, rows)
        if not include_single:
            return multi
        return np.union1d(multi, cases.single_polyp(index, rows))

    everyone = kind("all")
    texts, unions = _texts_and_unions(index, everyone, max_texts, setting, notes, noise)
    if noise.adds:
        notes.append(str(noise))

    def drawn(split: str) -> tuple[np.ndarray, list[np.ndarray]]:
        rows = kind(split)
        return cases.with_frames(rows, [selection.kept_frames(int(row)) for row in rows])

    def patients(
        index: Index, *, records: np.ndarray, candidates: list[np.ndarray], **rest: Any
    ) -> Batches:
        return patient_batches(
            index,
            records=records,
            candidates=candidates,
            scores=[selection.scores_of(own) for own in candidates],
            max_images=min(max_images, max(len(own) for own in candidates)),
            **rest,
        )

    who = "patients with polyps" if include_single else "multi-polyp patients"
    batches, validation = split_loaders(
        setting, "stage3", who, drawn, global_batch, "stage3", notes, patients
    )

    def complete(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        where = cases.position_of(everyone, batch["record"])
        return {
            **pictures(batch),
            "image_mask": batch["image_mask"],
            "ids": texts["ids"][where],
            "text_mask": texts["mask"][where],
            "union": unions[where],
            "valid": batch["valid"],
        }

    pairwise = cross_attention.mode == "pairwise"

    def embed(params: Any, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """Patient vectors; for pairwise attention, which needs all pairs, what it attends to."""
        image, ids = batch["image"], batch["ids"]
        b, k = image.shape[:2]
        v = encode_images(model, params, image.reshape(b * k, *image.shape[2:]))
        t = encode_texts(model, params, ids.reshape(-1, ids.shape[-1]))
        v, t = v.reshape(b, k, -1), t.reshape(b, ids.shape[1], -1)
        if pairwise:
            return v, t
        vectors: Any = cross_attention.apply(
            {"params": params.get("cross", {})}, v, batch["image_mask"], t, batch["text_mask"]
        )
        return vectors

    def contrast(params: Any, features: Any, batch: Batch) -> tuple[jax.Array, Terms]:
        scale = log_scale(params, temperature)
        union, valid = batch["union"], batch["valid"]
        v, t = features
        if pairwise:
            cosines: Any = cross_attention.apply(
                {"params": params["cross"]},
                v,
                batch["image_mask"],
                t,
                batch["text_mask"],
                method="similarity",
            )
            return similarity_loss(
                cosines, scale, union, union, target=target, target_norm=norm, valid=valid
            )
        return contrastive(v, t, scale, union, union, target=target, target_norm=norm, valid=valid)

    return PreparedStage(
        "stage3", batches, validation, complete, embed, contrast,
        notes=notes, on_device=seen(setting),
    )  # fmt: skip


def _texts_and_unions(
    index: Index,
    rows: np.ndarray,
    max_texts: int,
    setting: Setting,
    notes: list[str],
    noise: ExtractionNoise,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Padded token ids `[n, l, tokens]` with their mask, and the union bits `[n, a]`.

    The union is over all items, also over those whose sentence is left out.
    """
    chosen = [largest_first(index, index.item_rows(int(row)))[:max_texts] for row in rows]
    left_out = sum(
        int(index.records["num_items"][row]) - len(own)
        for row, own in zip(rows, chosen, strict=True)
    )
    if left_out:
        notes.append(f"{left_out} descriptions beyond the {max_texts} largest are not seen")
    flat, truncated = setting.tokenizer(
        [index.description(int(item)) for own in chosen for item in own]
    )
    if truncated:
        notes.append(f"{truncated} of {len(flat)} descriptions are cut at 77 tokens")
    width = max((len(own) for own in chosen), default=1)
    ids = np.zeros((len(rows), width, flat.shape[-1]), np.int32)
    ids[:] = flat[0] if len(flat) else 0  # padding holds a real text: always a valid EOT
    mask = np.zeros((len(rows), width), bool)
    unions = np.zeros((len(rows), NUM_BITS), np.float32)
    taken = 0
    for i, (row, own) in enumerate(zip(rows, chosen, strict=True)):
        ids[i, : len(own)] = flat[taken : taken + len(own)]
        mask[i, : len(own)] = True
        taken += len(own)
        items = index.item_rows(int(row))
        if len(items):
            bits = np.asarray(index.items["bits_text"][items])
            unions[i] = noise.applied(index, items, bits).max(axis=0)
    return {"ids": ids, "mask": mask}, unions


def largest_first(index: Index, items: np.ndarray) -> np.ndarray:
    """Item rows by size class, largest first; equal ones in the report's order."""
    bits = np.asarray(index.items["bits_text"][items])[:, aspect_slice("size_class")]
    rank = (bits * np.arange(1, bits.shape[1] + 1)).max(axis=1) if len(items) else bits[:, 0]
    return items[np.argsort(-rank.astype(np.int64), kind="stable")]
