"""DINO's projection head: an MLP, a bottleneck of unit length, cosines with many prototypes."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from endoclip_jax.models.layers import Linear, exact_gelu, l2_normalize

_MLP_INIT = nn.initializers.truncated_normal(0.02)
# PyTorch's default for a linear layer, of which weight normalisation keeps the directions.
_PROTOTYPE_INIT = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class PrototypeHead(nn.Module):
    """`[b, d]` features to `[b, prototypes]` cosines (Caron et al. 2021, section 3 and appendix C).

    Three linear layers with GELU between them, the last to `bottleneck`, L2-normalised; then one
    without bias whose columns are weight-normalised with their lengths held at 1, as DINO does by
    default (`norm_last_layer`).
    """

    prototypes: int
    hidden: int
    bottleneck: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b d"]) -> Float[Array, "b k"]:
        for layer in range(2):
            x = Linear(self.hidden, _MLP_INIT, dtype=self.dtype, name=f"mlp_{layer}")(x)
            x = exact_gelu(x)
        x = Linear(self.bottleneck, _MLP_INIT, dtype=self.dtype, name="bottleneck")(x)
        shape = (self.bottleneck, self.prototypes)
        kernel = Prototypes(shape, name="prototypes")()
        cosines = l2_normalize(x).astype(self.dtype) @ kernel.astype(self.dtype)
        return cosines.astype(jnp.float32)


class Prototypes(nn.Module):
    """A kernel with columns of unit length."""

    shape: tuple[int, int]

    @nn.compact
    def __call__(self) -> Float[Array, "d k"]:
        kernel: jax.Array = self.param("kernel", _PROTOTYPE_INIT, self.shape, jnp.float32)
        return l2_normalize(kernel.T).T
