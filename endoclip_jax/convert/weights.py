"""A model's weights with all that decides what they compute, wherever they come from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from endoclip_jax.convert.positions import interpolate_positions
from endoclip_jax.errors import UserError
from endoclip_jax.models.clip import CLIPConfig


@dataclass(frozen=True)
class Weights:
    """A CLIP of this project's form.

    Attributes:
      params: the CLIP tree (`vision`, `text`, `logit_scale`), float32.
      origin: what it was read from, for messages.
      cross: stage 3's cross-attention tree, if the model has one.
      attention: `attention` (the mode), `qk_norm` and `residual` of that tree.
      fixture: the logits these weights gave on the fixture when they were written, if known.
      notes: what was assumed or changed in reading, to be shown.
    """

    config: CLIPConfig
    params: Mapping[str, Any]
    origin: str
    cross: Mapping[str, Any] | None = None
    attention: Mapping[str, Any] = field(default_factory=dict)
    fixture: tuple[float, ...] | None = None
    notes: tuple[str, ...] = ()


def with_image_size(weights: Weights, image_size: int) -> Weights:
    """The same weights for images of another size, position embeddings interpolated.

    Raises:
      UserError: for a size that is no multiple of the patch.
    """
    vision = weights.config.vision
    if image_size == vision.image_size:
        return weights
    if image_size < 1 or image_size % vision.patch_size:
        raise UserError(
            f"images of {image_size} pixels do not divide into patches of {vision.patch_size}: "
            f"take a multiple of {vision.patch_size}"
        )
    before, after = (size // vision.patch_size for size in (vision.image_size, image_size))
    tree = dict(weights.params["vision"])
    tree["position_embedding"] = interpolate_positions(tree["position_embedding"], after)
    return dataclasses.replace(
        weights,
        config=dataclasses.replace(
            weights.config, vision=dataclasses.replace(vision, image_size=image_size)
        ),
        params={**weights.params, "vision": tree},
        fixture=None,
        notes=(
            *weights.notes,
            f"position embeddings of {weights.origin} interpolated from {before}x{before} patches "
            f"({vision.image_size} pixels) to {after}x{after} ({image_size} pixels)",
        ),
    )


def fitted(weights: Weights, wanted: CLIPConfig) -> Weights:
    """The weights for a run's model: its image size, everything else as it is.

    Raises:
      UserError: naming the first key on which model and run differ.
    """
    check_fits(weights.origin, weights.config, wanted)
    return with_image_size(weights, wanted.vision.image_size)


def check_fits(origin: str, given: CLIPConfig, wanted: CLIPConfig) -> None:
    """Refuses a run's model that differs from its weights' in anything but the image size.

    Raises:
      UserError: naming the first key on which they differ.
    """
    theirs, ours = _flat(given), _flat(wanted)
    for key, value in ours.items():
        if theirs[key] != value and key != "vision.image_size":
            raise UserError(
                f"{origin} has model.{key}={theirs[key]}, the configuration says {value}: "
                f"leave --config.model.{key} out, or start from other weights"
            )


def _flat(config: CLIPConfig) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.to_dict().items():
        parts = value if isinstance(value, dict) else {"": value}
        flat |= {f"{key}.{part}".rstrip("."): found for part, found in parts.items()}
    return flat
