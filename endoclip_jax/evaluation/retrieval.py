"""Image–text retrieval: recall@K where several patients have the same words.

A query hits if a *relevant* item is among its first K. Relevant is whatever has the same text as
the query's partner, or the same attribute bits: descriptions such as "A 3 mm sessile polyp in the
sigmoid colon." fit many patients, and to call all but one of them wrong would measure luck. Texts
are searched as distinct texts, so that one wrong sentence that fifty patients share is one mistake
and not fifty. Ties count against the query.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from endoclip_jax.evaluation.statistics import DRAWS, Groups, Interval, ratio_interval

KS = (1, 5, 10)


@dataclass(frozen=True)
class Retrieval:
    """Recall at each K with its interval and what random order would get; sizes of the search."""

    recall: Mapping[int, Interval]
    chance: Mapping[int, float]
    median_rank: float
    queries: int
    gallery: int


def same_findings(texts: Sequence[str], bits: Shaped[np.ndarray, "n a"]) -> Bool[np.ndarray, "n n"]:
    """Which pairs of items say the same: the same words, or the same bits where there are any."""
    words, bits = np.asarray(texts), np.asarray(bits).astype(bool)
    equal_bits = np.all(bits[:, None] == bits[None], axis=-1) & np.any(bits, axis=-1)[:, None]
    return np.equal(words[:, None], words[None]) | equal_bits


def image_to_text(
    similarity: Float[np.ndarray, "n n"],
    texts: Sequence[str],
    bits: Shaped[np.ndarray, "n a"],
    patients: Groups,
    *,
    seed: int,
    draws: int = DRAWS,
) -> Retrieval:
    """Images search among the distinct texts; row i and column i of `similarity` are partners."""
    _, first = np.unique(np.asarray(texts), return_index=True)
    relevant = same_findings(texts, bits)
    return _retrieval(similarity[:, first], relevant[:, first], patients, seed, draws)


def text_to_image(
    similarity: Float[np.ndarray, "n n"],
    texts: Sequence[str],
    bits: Shaped[np.ndarray, "n a"],
    patients: Groups,
    *,
    seed: int,
    draws: int = DRAWS,
) -> Retrieval:
    """Each patient's text searches among all images."""
    return _retrieval(similarity.T, same_findings(texts, bits), patients, seed, draws)


def ranks(
    similarity: Float[np.ndarray, "q g"], relevant: Bool[np.ndarray, "q g"]
) -> Int[np.ndarray, " q"]:
    """Place of each query's best relevant item, from 1; irrelevant items that tie come first."""
    best = np.where(relevant, similarity, -np.inf).max(axis=1, keepdims=True)
    return 1 + (~relevant & (similarity >= best)).sum(axis=1)


def chance_of_hit(relevant: Int[np.ndarray, " q"], gallery: int, k: int) -> float:
    """Mean chance that k items drawn at random hold one of each query's `relevant` ones."""
    missed = np.ones(len(relevant))
    for drawn in range(min(k, gallery)):
        missed *= np.maximum(gallery - relevant - drawn, 0) / (gallery - drawn)
    return float(1 - missed.mean())


def _retrieval(
    similarity: Float[np.ndarray, "q g"],
    relevant: Bool[np.ndarray, "q g"],
    patients: Groups,
    seed: int,
    draws: int,
) -> Retrieval:
    queries, gallery = similarity.shape
    places = ranks(similarity, relevant)
    one = np.ones(queries)
    return Retrieval(
        recall={k: ratio_interval(places <= k, one, patients, seed, draws) for k in KS},
        chance={k: chance_of_hit(relevant.sum(axis=1), gallery, k) for k in KS},
        median_rank=float(np.median(places)),
        queries=queries,
        gallery=gallery,
    )
