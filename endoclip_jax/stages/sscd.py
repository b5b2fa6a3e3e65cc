"""The baseline SSCD: a descriptor for copy detection from the same frames (arXiv 2202.10261).

Two strongly changed crops of a frame match each other, mixed images match both of their sources,
and every descriptor is pushed from its nearest stranger. Text tower and temperature stay as they
were.

Kept from the paper: the `strong blur` recipe, the fixed temperature 0.05, mixup with Beta(2, 2),
the entropy term. Taken from this project, the same for every row of Table 1: the tower with its
projection as descriptor, AdamW with its schedule. Left out: CutMix, and the overlays of emoji and
text, which no colonoscopy frame has.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from endoclip_jax.data.crops import Crops, Recipe
from endoclip_jax.objectives.copy_detection import copy_detection_loss, partners, share_kept
from endoclip_jax.stages.self_supervised import loaders_of_crops
from endoclip_jax.stages.stage import Batch, PreparedStage, Setting, Terms, encode_images

FROZEN = (("clip", "text"), ("clip", "logit_scale"))

STRONG_BLUR = Recipe((0.08, 1.0), (0.8, 0.8, 0.8, 0.2), blur=0.5, radii=(1.0, 5.0))
_VIEWS = 2


def sscd(
    setting: Setting,
    *,
    global_batch: int,
    temperature: float,
    entropy_weight: float,
    mix_odds: float,
) -> PreparedStage:
    """Two crops of one frame of each patient.

    Args:
      entropy_weight: of the term that spreads descriptors (lambda).
      mix_odds: the probability of an image to be mixed with another patient's.
    """
    notes: list[str] = []
    crops = Crops((STRONG_BLUR,) * _VIEWS)
    batches, validation = loaders_of_crops(setting, "sscd", global_batch, crops, notes)

    def complete(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: batch[name] for name in ("image", "chance", "valid")}

    def kept(batch: Batch) -> jax.Array:
        return share_kept(batch["chance"][:, :_VIEWS], batch["chance"][:, _VIEWS:], mix_odds)

    def together(batch: Batch) -> Batch:
        share = kept(batch)[..., None, None, None]
        other = jnp.argmax(partners(batch["valid"]), axis=1)
        image = batch["image"].astype(jnp.float32)
        mixed = jnp.round(share * image + (1 - share) * image[other])
        return {**batch, "image": mixed.astype(jnp.uint8)}

    def embed(params: Any, batch: Batch) -> jax.Array:
        image = batch["image"]
        rows = len(image)
        z = encode_images(setting.model, params, image.reshape(rows * _VIEWS, *image.shape[2:]))
        return z.reshape(rows, _VIEWS, -1)

    def contrast(params: Any, features: Any, batch: Batch) -> tuple[jax.Array, Terms]:
        rows = len(batch["valid"])
        share = kept(batch)[..., None]
        of_itself, of_another = jnp.eye(rows)[:, None], partners(batch["valid"])[:, None]
        contents = share * of_itself + (1 - share) * of_another
        return copy_detection_loss(
            features.reshape(rows * _VIEWS, -1),
            contents.reshape(rows * _VIEWS, rows),
            temperature=temperature,
            entropy_weight=entropy_weight,
            valid=jnp.repeat(batch["valid"], _VIEWS),
        )

    return PreparedStage(
        "sscd", batches, validation, complete, embed, contrast, notes=notes, together=together
    )
