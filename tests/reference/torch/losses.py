"""The one loss of the three stages: Eq. 2, 3 and 5 differ in `S` and `Y` only."""

from __future__ import annotations

import torch
from torch import Tensor


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """`CE(S, Y) = mean_i -sum_j Y_ij log softmax_j(S_ij)`; rows of `Y` need not sum to one."""
    return -(target * torch.log_softmax(logits, dim=1)).sum(dim=1).mean()


def symmetric_loss(logits: Tensor, image_to_text: Tensor, text_to_image: Tensor) -> Tensor:
    """`1/2 [CE(S, Y^{v->t}) + CE(S^T, Y^{t->v})]`, all [B, B]; rows of `logits` are images."""
    return (cross_entropy(logits, image_to_text) + cross_entropy(logits.T, text_to_image)) / 2
