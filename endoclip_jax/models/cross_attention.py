"""Cross-attention between a patient's images and descriptions (Endo-CLIP, Eq. 4).

    o_k^{v->t} = sum_l softmax_l((W_Q LN(v_k)) . (W_K LN(t_l)) / sqrt(D)) W_V t_l

and its mirror ``o_l^{t->v}``; each direction has its own three matrices. Three modes:

literal   a patient's images attend its own descriptions and the reverse:
          ``V_hat_i = mean_k o_k^{v->t}``, ``T_hat_i = mean_l o_l^{t->v}``.
pairwise  every (image patient i, text patient j) attends, so that attention cannot reveal
          who belongs to whom: ``S_ij = cos(mean_k o_k^{v->t}(v_i, t_j), mean_l
          o_l^{t->v}(t_j, v_i))``.
none      no attention: masked means of the embeddings (the paper's "averaging").

A literal row ``V_hat_i`` is a mean of attended *texts*; at K = L = 1 the literal cosine matrix
is the transpose of the pairwise one.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from endoclip_jax.errors import UserError
from endoclip_jax.models.layers import MASKED, l2_normalize, standardize

MODES = ("literal", "pairwise", "none")
QK_NORM_EPSILON = 1e-6


class AttentionWeights(NamedTuple):
    """Who looks at whom inside each patient; rows sum to one, masked entries are zero."""

    image_to_text: Float[Array, "b k l"]
    text_to_image: Float[Array, "b l k"]


class Projections(nn.Module):
    """W_Q, W_K, W_V of one direction, each starting as the identity."""

    dim: int
    qk_norm: bool

    def setup(self) -> None:
        self.query = self._square()
        self.key = self._square()
        self.value = self._square()

    def _square(self) -> nn.Dense:
        return nn.Dense(
            self.dim, use_bias=False, kernel_init=_identity, precision=jax.lax.Precision.HIGHEST
        )

    def queries(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        return self.query(self._normalized(x)) / math.sqrt(self.dim)

    def keys(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        return self.key(self._normalized(x))

    def values(self, x: Float[Array, "... d"]) -> Float[Array, "... d"]:
        return self.value(x)

    def _normalized(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        return standardize(x, QK_NORM_EPSILON) if self.qk_norm else x


class CrossAttention(nn.Module):
    """Patient-level matching of K images and L descriptions by single-head attention.

    Everything runs in float32. Masks are True for real entries; what padding holds never
    matters. ``image_to_text`` (the method's W^{vt}) has image queries over text keys and
    values; ``text_to_image`` (W^{tv}) the reverse. ``similarity`` serves every mode, and is the
    method to initialise with. With ``residual`` the queries' own embeddings are added to what
    they attended; that leaks the patient's identity and is off by default.
    """

    dim: int
    mode: str = "literal"
    qk_norm: bool = True
    residual: bool = False

    def setup(self) -> None:
        if self.mode not in MODES:
            raise UserError(
                f"the attention mode {self.mode!r} is not known; use one of {', '.join(MODES)}"
            )
        if self.mode != "none":
            self.image_to_text = Projections(self.dim, self.qk_norm)
            self.text_to_image = Projections(self.dim, self.qk_norm)

    def __call__(
        self,
        v: Float[Array, "b k d"],
        v_mask: Bool[Array, "b k"],
        t: Float[Array, "b l d"],
        t_mask: Bool[Array, "b l"],
    ) -> tuple[Float[Array, "b d"], Float[Array, "b d"]]:
        """Unit patient vectors ``(V_hat, T_hat)``; not for ``pairwise``, which has none."""
        if self.mode == "pairwise":
            raise ValueError("pairwise attention has no patient vectors: use similarity()")
        v, t = _without_padding(v, v_mask), _without_padding(t, t_mask)
        if self.mode == "none":
            return l2_normalize(_masked_mean(v, v_mask)), l2_normalize(_masked_mean(t, t_mask))
        own = self._own_weights(v, v_mask, t, t_mask)
        # The mean over queries comes before the values: the same sum, in [b, l] and [b, k].
        text_share = _masked_mean(own.image_to_text, v_mask)
        image_share = _masked_mean(own.text_to_image, t_mask)
        v_hat = _einsum("bl,bld->bd", text_share, self.image_to_text.values(t))
        t_hat = _einsum("bk,bkd->bd", image_share, self.text_to_image.values(v))
        if self.residual:
            v_hat = v_hat + _masked_mean(v, v_mask)
            t_hat = t_hat + _masked_mean(t, t_mask)
        return l2_normalize(v_hat), l2_normalize(t_hat)

    def similarity(
        self,
        v: Float[Array, "b k d"],
        v_mask: Bool[Array, "b k"],
        t: Float[Array, "c l d"],
        t_mask: Bool[Array, "c l"],
    ) -> Float[Array, "b c"]:
        """Cosines of all patients' images (rows) with all patients' texts (columns)."""
        if self.mode != "pairwise":
            v_hat, t_hat = self(v, v_mask, t, t_mask)
            return _einsum("bd,cd->bc", v_hat, t_hat)
        v, t = _without_padding(v, v_mask), _without_padding(t, t_mask)
        vt, tv = self.image_to_text, self.text_to_image
        logits_vt = _einsum("bkd,cld->bckl", vt.queries(v), vt.keys(t))
        logits_tv = _einsum("cld,bkd->bclk", tv.queries(t), tv.keys(v))
        text_share = _masked_mean(_attention(logits_vt, t_mask[None, :, None]), v_mask[:, None])
        image_share = _masked_mean(_attention(logits_tv, v_mask[:, None, None]), t_mask[None])
        attended_text = _einsum("bcl,cld->bcd", text_share, vt.values(t))
        attended_image = _einsum("bck,bkd->bcd", image_share, tv.values(v))
        if self.residual:
            attended_text = attended_text + _masked_mean(v, v_mask)[:, None]
            attended_image = attended_image + _masked_mean(t, t_mask)[None]
        return jnp.sum(l2_normalize(attended_text) * l2_normalize(attended_image), axis=-1)

    def attention_weights(
        self,
        v: Float[Array, "b k d"],
        v_mask: Bool[Array, "b k"],
        t: Float[Array, "b l d"],
        t_mask: Bool[Array, "b l"],
    ) -> AttentionWeights:
        """The weights of every patient's own images and texts, for plots; not for ``none``."""
        if self.mode == "none":
            raise ValueError("attention mode 'none' has no attention weights")
        v, t = _without_padding(v, v_mask), _without_padding(t, t_mask)
        own = self._own_weights(v, v_mask, t, t_mask)
        return AttentionWeights(
            own.image_to_text * v_mask[:, :, None], own.text_to_image * t_mask[:, :, None]
        )

    def project_image(self, v: Float[Array, "... d"]) -> Float[Array, "... d"]:
        """Unit ``W_V^{tv} v``: what a single image becomes when it is all there is to attend."""
        return l2_normalize(v if self.mode == "none" else self.text_to_image.values(v))

    def project_text(self, t: Float[Array, "... d"]) -> Float[Array, "... d"]:
        """Unit ``W_V^{vt} t``: what a single text becomes when it is all there is to attend.

        ``project_image(v) . project_text(t)`` is the trained function at K = L = 1, the
        zero-shot score (without ``residual``, whose score does not separate).
        """
        return l2_normalize(t if self.mode == "none" else self.image_to_text.values(t))

    def _own_weights(self, v: Array, v_mask: Array, t: Array, t_mask: Array) -> AttentionWeights:
        vt, tv = self.image_to_text, self.text_to_image
        logits_vt = _einsum("bkd,bld->bkl", vt.queries(v), vt.keys(t))
        logits_tv = _einsum("bld,bkd->blk", tv.queries(t), tv.keys(v))
        return AttentionWeights(
            _attention(logits_vt, t_mask[:, None]), _attention(logits_tv, v_mask[:, None])
        )


def _identity(_key: Array, shape: tuple[int, int], dtype: Any) -> Array:
    return jnp.eye(*shape, dtype=dtype)


def _without_padding(x: Float[Array, "b n d"], mask: Bool[Array, "b n"]) -> Array:
    return jnp.where(mask[..., None], x.astype(jnp.float32), 0)


def _attention(logits: Float[Array, "... q n"], mask: Bool[Array, "... n"]) -> Array:
    """Softmax over the unmasked entries of the last axis; all zero where there are none."""
    weights = jax.nn.softmax(jnp.where(mask, logits, MASKED), axis=-1)
    return jnp.where(mask, weights, 0)


def _masked_mean(x: Float[Array, "... n d"], mask: Bool[Array, "... n"]) -> Array:
    """Mean over the second-last axis; zero where nothing is unmasked."""
    count = jnp.maximum(jnp.sum(mask, axis=-1), 1).astype(jnp.float32)
    return jnp.sum(jnp.where(mask[..., None], x, 0), axis=-2) / count[..., None]


def _einsum(subscripts: str, *operands: Array) -> Array:
    return jnp.einsum(subscripts, *operands, precision=jax.lax.Precision.HIGHEST)
