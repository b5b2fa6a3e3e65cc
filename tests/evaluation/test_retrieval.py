"""Retrieval against counting by hand: duplicates, equal bits, ties and chance."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from endoclip_jax.evaluation.retrieval import (
    chance_of_hit,
    image_to_text,
    ranks,
    same_findings,
    text_to_image,
)

TEXTS = ["a", "a", "b", "c", "d"]
BITS = np.array([[1, 0], [1, 0], [0, 1], [0, 0], [0, 0]])
PATIENTS = np.arange(5)


def test_relevant_is_the_same_text_or_the_same_bits_but_never_two_empty_ones():
    bits = BITS.copy()
    bits[2] = bits[0]
    expected = np.eye(5, dtype=bool)
    for i, j in itertools.permutations((0, 1, 2), 2):
        expected[i, j] = True
    np.testing.assert_array_equal(same_findings(TEXTS, bits), expected)


def test_a_duplicate_of_the_partner_is_a_hit_and_a_wrong_sentence_counts_once():
    # columns: texts of patients 0..4; "a" stands twice
    similarity = np.array(
        [
            [0.1, 0.9, 0.2, 0.3, 0.0],  # own text scored low, its twin high: the same words
            [0.9, 0.9, 0.2, 0.3, 0.0],
            [0.9, 0.9, 0.8, 0.1, 0.0],  # one wrong sentence of two patients: rank 2, not 3
            [0.3, 0.3, 0.3, 0.3, 0.0],  # two distinct wrong sentences tie: they come first
            [0.5, 0.5, 0.5, 0.5, 0.9],
        ]
    )
    # equal texts have equal embeddings, so of the two "a" columns the first one is searched
    similarity[0, 0] = similarity[0, 1]
    found = image_to_text(similarity, TEXTS, BITS, PATIENTS, seed=0, draws=50)
    assert (found.queries, found.gallery) == (5, 4)
    assert found.recall[1].value == pytest.approx(3 / 5)
    assert found.recall[5].value == 1
    assert found.recall[1].low < 3 / 5 < found.recall[1].high
    assert found.median_rank == 1
    assert found.chance[1] == pytest.approx(1 / 4)


def test_texts_search_images_by_columns():
    similarity = np.zeros((5, 5))
    similarity[3, 2] = 1.0  # image 3 looks like text 2
    similarity[1, 0] = 1.0  # image 1 looks like text 0, which is also its own
    found = text_to_image(similarity, TEXTS, BITS, PATIENTS, seed=0, draws=20)
    assert found.gallery == 5
    # text 0: image 1 is relevant. All else ties with every irrelevant image, which come first.
    assert found.recall[1].value == pytest.approx(1 / 5)


def test_ranks_by_sorting():
    rng = np.random.default_rng(0)
    similarity = rng.normal(size=(20, 9))
    relevant = rng.random((20, 9)) < 0.3
    relevant[np.arange(20), rng.integers(0, 9, 20)] = True
    for row, place, hits in zip(similarity, ranks(similarity, relevant), relevant, strict=True):
        order = sorted(range(9), key=lambda item: -row[item])
        first = next(n for n, item in enumerate(order) if hits[item])
        assert place == first + 1  # whatever stands before the first hit is irrelevant


def test_chance_by_enumeration():
    relevant, gallery, k = np.array([1, 3]), 6, 2
    hits = [
        np.mean([min(draw) < m for draw in itertools.combinations(range(gallery), k)])
        for m in relevant
    ]
    assert chance_of_hit(relevant, gallery, k) == pytest.approx(np.mean(hits))
    assert chance_of_hit(np.array([1]), 3, 10) == 1
