"""CLIP's text transformer (Radford et al., 2021), as OpenAI released it."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from endoclip_jax.models.layers import Activation, LayerNorm, Linear, block_of


class TextTransformer(nn.Module):
    """Token ids to one text feature: the EOT token of a causal pre-LN transformer, projected.

    EOT has the highest id of the vocabulary, so its first position is ``argmax(ids)``. Under
    the causal mask nothing after it can reach it: any padding, and any length up to
    ``context_length``, gives the same feature.
    """

    vocab_size: int
    context_length: int
    width: int
    layers: int
    heads: int
    embed_dim: int
    activation: Activation
    layer_norm_eps: float
    dtype: Any = jnp.float32
    remat: str = "none"

    @nn.compact
    def __call__(self, ids: Int[Array, "b n"]) -> Float[Array, "b d"]:
        """``ids [b, n]``, n <= context_length, start and EOT included -> ``[b, embed_dim]``."""
        length = ids.shape[1]
        if length > self.context_length:
            raise ValueError(f"{length} tokens exceed the context of {self.context_length}")
        normal = nn.initializers.normal
        embed = self.param(
            "token_embedding", normal(0.02), (self.vocab_size, self.width), jnp.float32
        )
        positions = self.param(
            "position_embedding", normal(0.01), (self.context_length, self.width), jnp.float32
        )
        x = embed[ids].astype(self.dtype) + positions[:length].astype(self.dtype)

        eot = jnp.argmax(ids, axis=1)[:, None]
        token = jnp.arange(length)
        causal = (token[None, :] <= token[:, None])[None]
        up_to_eot = token[None, None, :] <= eot[:, :, None]

        def eot_token(x: Float[Array, "b n d"]) -> Float[Array, "b 1 d"]:
            return jnp.take_along_axis(x, eot[:, :, None], axis=1)

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
            x = block(x, up_to_eot, eot_token) if last else block(x, causal, None)
        x = LayerNorm(self.layer_norm_eps, self.dtype, name="final_norm")(x[:, 0])
        projection = Linear(
            self.embed_dim,
            normal(self.width**-0.5),
            use_bias=False,
            dtype=self.dtype,
            name="projection",
        )
        return projection(x)
