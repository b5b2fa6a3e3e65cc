"""The pieces both CLIP towers are made of: normalisation, attention, MLP, pre-LayerNorm block.

Parameters are float32; products run in the compute dtype; LayerNorm and softmax in float32.
Initialisation is OpenAI CLIP's scheme for its transformers (``initialize_parameters`` of
``clip/model.py``), used for both towers: weights that write into the residual stream get
``width**-0.5 * (2 * layers)**-0.5``, the others ``width**-0.5`` (first MLP matrix
``(2 * width)**-0.5``), biases zero.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num

from endoclip_jax.errors import UserError

Activation = Callable[[Array], Array]
Initializer = Callable[..., Array]

MASKED = -1e30  # finite: an all-masked row must stay a number


def quick_gelu(x: Array) -> Array:
    """``x * sigmoid(1.702 x)``, the activation OpenAI trained CLIP with."""
    return x * jax.nn.sigmoid(1.702 * x)


def exact_gelu(x: Array) -> Array:
    """GELU by the error function (Flax defaults to the tanh approximation)."""
    return jax.nn.gelu(x, approximate=False)


ACTIVATIONS: dict[str, Activation] = {"quick_gelu": quick_gelu, "gelu": exact_gelu}


def l2_normalize(x: Num[Array, "... d"]) -> Float[Array, "... d"]:
    """Rows of unit length in float32; a zero row stays zero, with a finite gradient."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, axis=-1, keepdims=True), 1e-12))


class LayerNorm(nn.Module):
    """LayerNorm over the last axis, computed in float32 with the two-pass variance."""

    epsilon: float
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "... d"]) -> Float[Array, "... d"]:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],), jnp.float32)
        return (standardize(x, self.epsilon) * scale + bias).astype(self.dtype)


def standardize(x: Float[Array, "... d"], epsilon: float) -> Float[Array, "... d"]:
    """LayerNorm without parameters, in float32."""
    return _standardized(x.astype(jnp.float32), epsilon)


# The gradient is written out: derived through mean and variance, it takes XLA's CPU program three
# times as long. Forward mode (`jax.jvp` of a tower) is refused since.
@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _standardized(x: Float[Array, "... d"], epsilon: float) -> Float[Array, "... d"]:
    return _standardized_forward(x, epsilon)[0]


def _standardized_forward(x: Array, epsilon: float) -> tuple[Array, tuple[Array, Array]]:
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.mean(centred * centred, axis=-1, keepdims=True)
    inverse = jax.lax.rsqrt(variance + epsilon)
    y = centred * inverse
    return y, (y, inverse)


def _standardized_backward(
    _epsilon: float, kept: tuple[Array, Array], gradient: Array
) -> tuple[Array]:
    """``(g - mean(g) - y mean(g y)) / deviation`` (Ba et al. 2016, without gain and bias)."""
    y, inverse = kept
    mean = jnp.mean(gradient, axis=-1, keepdims=True)
    along = jnp.mean(gradient * y, axis=-1, keepdims=True)
    return (inverse * (gradient - mean - y * along),)


_standardized.defvjp(_standardized_forward, _standardized_backward)


class Linear(nn.Module):
    """``x @ kernel (+ bias)``, of which a range of output columns can be computed alone."""

    features: int
    kernel_init: Initializer
    use_bias: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "... i"], columns: slice = slice(None)
    ) -> Float[Array, "... o"]:
        shape = (x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        # Rows flattened: XLA's CPU gradient of a rank-2 product is the faster one.
        rows = x.astype(self.dtype).reshape(-1, x.shape[-1])
        y = rows @ kernel[:, columns].astype(self.dtype)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
            y = y + bias[columns].astype(self.dtype)
        return y.reshape(*x.shape[:-1], -1)


class SelfAttention(nn.Module):
    """Multi-head self-attention with one fused query-key-value product.

    ``qkv`` holds the three projections side by side, ``[width, 3 * width]`` in the order
    query, key, value (OpenAI's ``in_proj``); heads are contiguous blocks of columns.
    """

    heads: int
    qkv_init: Initializer
    out_init: Initializer
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b n d"],
        mask: Bool[Array, "#b q n"] | None = None,
        query: Float[Array, "b q d"] | None = None,
    ) -> Float[Array, "b q d"]:
        """Attend from ``query`` (default: ``x`` itself) over ``x``; ``mask`` True = may look."""
        width = x.shape[-1]
        qkv = Linear(3 * width, self.qkv_init, dtype=self.dtype, name="qkv")
        if query is None:
            q, k, v = jnp.split(qkv(x), 3, axis=-1)
        else:
            q = qkv(query, slice(0, width))
            k, v = jnp.split(qkv(x, slice(width, None)), 2, axis=-1)
        q, k, v = (self._split_heads(y) for y in (q, k, v))
        logits = jnp.einsum("bhqd,bhkd->bhqk", q * (width // self.heads) ** -0.5, k)
        logits = logits.astype(jnp.float32)
        if mask is not None:
            logits = jnp.where(mask[:, None], logits, MASKED)
        weights = jax.nn.softmax(logits, axis=-1).astype(self.dtype)
        attended = jnp.einsum("bhqk,bhkd->bhqd", weights, v)
        attended = attended.transpose(0, 2, 1, 3).reshape(*q.shape[:1], q.shape[2], width)
        return Linear(width, self.out_init, dtype=self.dtype, name="out")(attended)

    def _split_heads(self, x: Float[Array, "b n d"]) -> Float[Array, "b h n e"]:
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(0, 2, 1, 3)


REMAT = ("none", "dots", "full")


def block_of(remat: str) -> type[Block]:
    """``Block`` that keeps for its backward pass all (``none``), only the products with weights
    (``dots``), or nothing but its input (``full``); the rest is computed again. Same numbers.
    """
    if remat == "none":
        return Block
    policies = {"dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable, "full": None}
    if remat not in policies:
        raise UserError(f"remat {remat!r} is not known; use one of {', '.join(REMAT)}")
    pool = 3  # a function, counted from self
    return nn.remat(Block, policy=policies[remat], static_argnums=(pool,))


class Block(nn.Module):
    """Pre-LayerNorm transformer block: ``x + attention(LN x)``, then ``x + mlp(LN x)``."""

    heads: int
    layers: int  # of the whole tower: scales the initialisation
    activation: Activation
    layer_norm_eps: float
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b n d"],
        mask: Bool[Array, "#b q n"] | None = None,
        pool: Callable[[Array], Array] | None = None,
    ) -> Float[Array, "b q d"]:
        """All tokens, or with ``pool: [b, n, d] -> [b, q, d]`` only those it picks.

        A tower that reads one token needs the last block at that token only; keys and values
        still come from all. Same numbers, a sixth of the block's work.
        """
        width = x.shape[-1]
        normal = nn.initializers.normal
        residual_init = normal(width**-0.5 * (2 * self.layers) ** -0.5)
        norm_1 = LayerNorm(self.layer_norm_eps, self.dtype, name="norm_1")
        norm_2 = LayerNorm(self.layer_norm_eps, self.dtype, name="norm_2")
        attention = SelfAttention(
            self.heads, normal(width**-0.5), residual_init, self.dtype, name="attention"
        )
        up = Linear(4 * width, normal((2 * width) ** -0.5), dtype=self.dtype, name="up")
        down = Linear(width, residual_init, dtype=self.dtype, name="down")

        context = norm_1(x)
        if pool is None:
            x = x + attention(context, mask)
        else:
            x = pool(x) + attention(context, mask, query=pool(context))
        return x + down(self.activation(up(norm_2(x))))
