"""CLIP's vision transformer (Radford et al., 2021), as OpenAI released it."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from endoclip_jax.models.layers import Activation, LayerNorm, Linear, block_of


class PatchEmbedding(nn.Module):
    """Convolution without bias whose stride is its kernel, done as reshape and matmul.

    The parameter keeps the convolution's shape ``[p, p, 3, width]`` (HWIO).
    """

    patch_size: int
    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, pixels: Float[Array, "b s s 3"]) -> Float[Array, "b n d"]:
        patch = self.patch_size
        # PyTorch's default for a convolution, which OpenAI left in place: U(+-fan_in**-0.5).
        init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
        kernel = self.param("kernel", init, (patch, patch, 3, self.width), jnp.float32)
        batch, size = pixels.shape[0], pixels.shape[1]
        side = size // patch
        patches = pixels.astype(self.dtype).reshape(batch, side, patch, side, patch, 3)
        patches = patches.transpose(0, 1, 3, 2, 4, 5).reshape(batch, side * side, -1)
        return patches @ kernel.reshape(-1, self.width).astype(self.dtype)


class VisionTransformer(nn.Module):
    """Pixels to one image feature: the class token of a pre-LN transformer, projected."""

    image_size: int
    patch_size: int
    width: int
    layers: int
    heads: int
    embed_dim: int
    activation: Activation
    layer_norm_eps: float
    dtype: Any = jnp.float32
    remat: str = "none"

    @nn.compact
    def __call__(self, pixels: Float[Array, "b s s 3"]) -> Float[Array, "b d"]:
        """``pixels [b, S, S, 3]``, normalised by CLIP's mean and std -> ``[b, embed_dim]``."""
        expected = (self.image_size, self.image_size, 3)
        if pixels.shape[1:] != expected:
            raise ValueError(f"expected images of shape {expected}, got {pixels.shape[1:]}")
        scale = nn.initializers.normal(self.width**-0.5)
        x = PatchEmbedding(self.patch_size, self.width, self.dtype, name="patch_embedding")(pixels)
        class_token = self.param("class_embedding", scale, (self.width,), jnp.float32)
        positions = self.param(
            "position_embedding", scale, (x.shape[1] + 1, self.width), jnp.float32
        )
        class_token = jnp.broadcast_to(class_token, (x.shape[0], 1, self.width))
        x = jnp.concatenate([class_token.astype(self.dtype), x], axis=1)
        x = x + positions.astype(self.dtype)
        x = LayerNorm(self.layer_norm_eps, self.dtype, name="pre_norm")(x)
        for layer in range(self.layers):
            block = block_of(self.remat)(
                self.heads,
                self.layers,
                self.activation,
                self.layer_norm_eps,
                self.dtype,
                name=f"block_{layer}",
            )
            last = layer == self.layers - 1
            x = block(x, None, _class_token if last else None)
        x = LayerNorm(self.layer_norm_eps, self.dtype, name="post_norm")(x[:, 0])
        projection = Linear(
            self.embed_dim, scale, use_bias=False, dtype=self.dtype, name="projection"
        )
        return projection(x)


def _class_token(x: Float[Array, "b n d"]) -> Float[Array, "b 1 d"]:
    return x[:, :1]
