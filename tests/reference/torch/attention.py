"""Cross-attention between the images and the descriptions of a patient (Eq. 4)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .towers import unit

HIDDEN = -1e9  # a finite logit for padding: its exponential is exactly 0 in float32


def layer_norm(x: Tensor) -> Tensor:
    """LayerNorm without parameters, eps 1e-6."""
    return nn.functional.layer_norm(x, x.shape[-1:], eps=1e-6)


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of `x` [..., n, D] over the entries that `mask` [..., n] holds."""
    weights = mask.float()
    return (x * weights[..., None]).sum(dim=-2) / weights.sum(dim=-1, keepdim=True)


class Direction(nn.Module):
    """`W_Q, W_K, W_V` of one direction; each starts as the identity."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.eye(size))
        self.key = nn.Parameter(torch.eye(size))
        self.value = nn.Parameter(torch.eye(size))

    def forward(
        self, asking: Tensor, answering: Tensor, mask: Tensor, *, qk_norm: bool, residual: bool
    ) -> Tensor:
        """`o_k = sum_l softmax_l((W_Q x_k).(W_K y_l) / sqrt(D)) W_V y_l`.

        asking [..., K, D], answering [..., L, D], mask [..., L] of the answering -> [..., K, D].
        """
        condition = layer_norm if qk_norm else (lambda x: x)
        queries = condition(asking) @ self.query.T
        keys = condition(answering) @ self.key.T
        logits = queries @ keys.transpose(-1, -2) / math.sqrt(asking.shape[-1])
        logits = logits.masked_fill(~mask[..., None, :], HIDDEN)
        attended = torch.softmax(logits, dim=-1) @ (answering @ self.value.T)
        return attended + asking if residual else attended


class CrossAttention(nn.Module):
    """Patients' similarities from their images and descriptions, in one of three ways.

    `literal`: a patient's images attend its own descriptions and the reverse, then one vector for
    each modality; `pairwise`: the images of patient i attend the descriptions of every patient j;
    `none`: plain averages, and no weights.
    """

    def __init__(self, size: int, mode: str, *, qk_norm: bool = True, residual: bool = False):
        super().__init__()
        if mode not in ("literal", "pairwise", "none"):
            raise ValueError(f"unknown attention {mode!r}")
        self.mode, self.qk_norm, self.residual = mode, qk_norm, residual
        if mode != "none":
            self.image_to_text = Direction(size)
            self.text_to_image = Direction(size)

    def _attend(self, v: Tensor, v_mask: Tensor, t: Tensor, t_mask: Tensor):
        """Means over a patient of both directions' attended features: [..., D] each."""
        options = {"qk_norm": self.qk_norm, "residual": self.residual}
        over_images = self.image_to_text(v, t, t_mask, **options)
        over_texts = self.text_to_image(t, v, v_mask, **options)
        return masked_mean(over_images, v_mask), masked_mean(over_texts, t_mask)

    def forward(self, v: Tensor, v_mask: Tensor, t: Tensor, t_mask: Tensor) -> Tensor:
        """Cosines between patients, [B, B]: row i the images of i, column j the texts of j.

        v [B, K, D], v_mask [B, K], t [B, L, D], t_mask [B, L].
        """
        if self.mode == "pairwise":
            count = len(v)
            v, v_mask = (x[:, None].expand(-1, count, *x.shape[1:]) for x in (v, v_mask))
            t, t_mask = (x[None, :].expand(count, *x.shape) for x in (t, t_mask))
            images, texts = self._attend(v, v_mask, t, t_mask)  # [B, B, D] each
            return (unit(images) * unit(texts)).sum(dim=-1)
        if self.mode == "none":
            images, texts = masked_mean(v, v_mask), masked_mean(t, t_mask)
        else:
            images, texts = self._attend(v, v_mask, t, t_mask)
        return unit(images) @ unit(texts).T
