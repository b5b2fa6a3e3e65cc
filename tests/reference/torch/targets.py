"""Targets of the contrastive losses: what the diagonal of Eq. 2 becomes in Eq. 3 and Eq. 5.

M = cos(a_v, a_t)          one-hot          l1: max(M, I), rows divided by their sums
  1   .5   0               1  0  0          .67  .33   0
 .5    1  .5               0  1  0          .25  .50  .25
  0   .5   1               0  0  1           0   .33  .67
"""

from __future__ import annotations

import re

import torch
from torch import Tensor


def morphological_similarity(a_v: Tensor, a_t: Tensor) -> Tensor:
    """`M_ij = cos(a_v^i, a_t^j)`; a row or column without attributes is 0.  [B, A] x2 -> [B, B]"""
    lengths = a_v.norm(dim=1)[:, None] * a_t.norm(dim=1)[None, :]
    return torch.where(lengths > 0, a_v @ a_t.T / lengths.clamp_min(1e-12), 0.0)


def one_hot(count: int) -> Tensor:
    """Eq. 2: the diagonal."""
    return torch.eye(count)


def multi_positive(sentence: Tensor) -> Tensor:
    """Everything with the same sentence is a positive, in equal parts.  int [B] -> [B, B]"""
    same = (sentence[:, None] == sentence[None, :]).float()
    return same / same.sum(dim=1, keepdim=True)


def soft_rows(similarity: Tensor, norm: str) -> Tensor:
    """Targets of one direction from its `M` (the other direction passes `M.T`).  [B, B] -> [B, B]

    `norm`: `l1`, `power(p)`, `softmax(tau)`, or `none` for `M` itself with its own diagonal.
    """
    if norm == "none":
        return similarity
    with_diagonal = torch.maximum(similarity, torch.eye(len(similarity)))
    if norm == "l1":
        weights = with_diagonal
    elif match := re.fullmatch(r"power\((.+)\)", norm):
        weights = with_diagonal ** float(match[1])
    elif match := re.fullmatch(r"softmax\((.+)\)", norm):
        return torch.softmax(with_diagonal / float(match[1]), dim=1)
    else:
        raise ValueError(f"unknown target normalisation {norm!r}")
    return weights / weights.sum(dim=1, keepdim=True)


def entropy(target: Tensor) -> Tensor:
    """The least value the cross-entropy with `target` can take: `mean_i r_i H(Y_i / r_i)`."""
    mass = target.sum(dim=1, keepdim=True)
    rows = torch.where(target > 0, target / mass.clamp_min(1e-12), 1.0)
    return -(torch.where(target > 0, target, 0.0) * torch.log(rows)).sum(dim=1).mean()
