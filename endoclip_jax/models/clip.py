"""The two-tower CLIP model and its configurations."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from endoclip_jax.errors import UserError
from endoclip_jax.models.layers import ACTIVATIONS, l2_normalize
from endoclip_jax.models.text import TextTransformer
from endoclip_jax.models.vit import VisionTransformer

LOGIT_SCALE_INIT = math.log(1 / 0.07)


def _require_divisible(name: str, value: int, by: str, divisor: int) -> None:
    if divisor < 1 or value % divisor:
        raise UserError(f"the model's {name} {value} is not a multiple of its {by} {divisor}")


@dataclasses.dataclass(frozen=True)
class VisionConfig:
    """Size of the image tower; ``image_size`` and ``patch_size`` in pixels."""

    image_size: int
    patch_size: int
    width: int
    layers: int
    heads: int

    def __post_init__(self) -> None:
        _require_divisible("vision image_size", self.image_size, "patch_size", self.patch_size)
        _require_divisible("vision width", self.width, "heads", self.heads)


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """Size of the text tower; ``context_length`` in tokens."""

    width: int
    layers: int
    heads: int
    vocab_size: int = 49408
    context_length: int = 77

    def __post_init__(self) -> None:
        _require_divisible("text width", self.width, "heads", self.heads)


@dataclasses.dataclass(frozen=True)
class CLIPConfig:
    """Everything that decides what the parameters mean; travels with every checkpoint."""

    vision: VisionConfig
    text: TextConfig
    embed_dim: int = 512
    activation: str = "quick_gelu"
    layer_norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            known = ", ".join(sorted(ACTIVATIONS))
            raise UserError(
                f"the model's activation {self.activation!r} is not known; use one of {known}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dictionary, ready for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CLIPConfig:
        """Inverse of ``to_dict``; an unknown or missing key is a ``UserError``."""
        try:
            parts = dict(values)
            parts["vision"] = VisionConfig(**parts["vision"])
            parts["text"] = TextConfig(**parts["text"])
            return cls(**parts)
        except (KeyError, TypeError) as error:
            raise UserError(
                f"the model's configuration cannot be read ({error}); "
                "it comes from another version or is damaged: write it again"
            ) from error


VIT_B32 = CLIPConfig(
    vision=VisionConfig(image_size=224, patch_size=32, width=768, layers=12, heads=12),
    text=TextConfig(width=512, layers=12, heads=8),
    embed_dim=512,
)

DEMO = CLIPConfig(
    vision=VisionConfig(image_size=64, patch_size=16, width=128, layers=4, heads=2),
    text=TextConfig(width=64, layers=2, heads=2),
    embed_dim=64,
)


class CLIP(nn.Module):
    """Image and text tower with one learnable, logarithmic temperature.

    Parameters: ``{"vision": ..., "text": ..., "logit_scale": scalar}``, all float32.
    ``dtype`` is that of the products inside the towers; embeddings leave in float32. ``remat``
    says what the backward pass computes again (``layers.block_of``).
    """

    config: CLIPConfig
    dtype: Any = jnp.float32
    remat: str = "none"

    def setup(self) -> None:
        shared = {
            "embed_dim": self.config.embed_dim,
            "activation": ACTIVATIONS[self.config.activation],
            "layer_norm_eps": self.config.layer_norm_eps,
            "dtype": self.dtype,
            "remat": self.remat,
        }
        self.vision = VisionTransformer(**dataclasses.asdict(self.config.vision), **shared)
        self.text = TextTransformer(**dataclasses.asdict(self.config.text), **shared)
        self.logit_scale = self.param(
            "logit_scale", nn.initializers.constant(LOGIT_SCALE_INIT), (), jnp.float32
        )

    def encode_image(self, pixels: Float[Array, "b s s 3"]) -> Float[Array, "b d"]:
        """Unit image embeddings, float32, of pixels normalised by CLIP's mean and std."""
        return l2_normalize(self.vision(pixels))

    def encode_text(self, ids: Int[Array, "b n"]) -> Float[Array, "b d"]:
        """Unit text embeddings, float32, of token ids (any length up to the context)."""
        return l2_normalize(self.text(ids))

    def __call__(
        self, pixels: Float[Array, "b s s 3"], ids: Int[Array, "c n"]
    ) -> tuple[Float[Array, "b d"], Float[Array, "c d"], Float[Array, ""]]:
        """``(v, t, logit_scale)``: unit embeddings and the temperature's logarithm."""
        return self.encode_image(pixels), self.encode_text(ids), self.logit_scale


def initial_params(model: CLIP, seed: int) -> dict[str, Any]:
    """CLIP's initialisation from a seed, as host arrays."""
    return jax.device_get(_initialised(model, jax.random.key(seed)))


@functools.partial(jax.jit, static_argnums=0)  # one compilation, not one for each operation
def _initialised(model: CLIP, key: jax.Array) -> dict[str, Any]:
    size, last_id = model.config.vision.image_size, model.config.text.vocab_size - 1
    ids = jnp.zeros((1, 8), jnp.int32).at[:, -1].set(last_id)
    return dict(model.init(key, jnp.zeros((1, size, size, 3)), ids)["params"])
