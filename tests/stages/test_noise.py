"""Noise on attributes: which bits it touches, and that only the share and the seed decide."""

import numpy as np
import pytest

from endoclip_jax.records.attributes import NUM_BITS
from endoclip_jax.shards.index import Index
from endoclip_jax.stages.noise import NO_NOISE, ExtractionNoise


@pytest.fixture(scope="module")
def index(tiny_shards):
    return Index.open(tiny_shards)


@pytest.fixture(scope="module")
def items(index):
    return np.arange(len(index.items))


@pytest.fixture(scope="module")
def bits(index):
    return np.asarray(index.items["bits_text"])


def test_without_noise_nothing_changes(index, items, bits):
    assert NO_NOISE.applied(index, items, bits) is bits and not NO_NOISE.adds


def test_lost_bits_are_set_ones_in_the_share_asked_for(index, items, bits):
    noisy = ExtractionNoise(drop=0.3).applied(index, items, bits)
    assert not np.any(noisy > bits)
    assert np.sum(noisy < bits) / bits.sum() == pytest.approx(0.3, abs=0.08)


def test_inverted_bits_are_any_in_the_share_asked_for(index, items, bits):
    changed = ExtractionNoise(flip=0.2).applied(index, items, bits) != bits
    assert changed.mean() == pytest.approx(0.2, abs=0.05)
    assert changed[bits == 0].any() and changed[bits == 1].any()


def test_more_noise_adds_to_less(index, items, bits):
    for kind in ("drop", "flip"):
        less, more = (
            ExtractionNoise(**{kind: p}).applied(index, items, bits) != bits for p in (0.1, 0.3)
        )
        assert less.sum() < more.sum() and not np.any(less & ~more)


def test_an_items_noise_hangs_on_its_name_and_the_seed_alone(index, items, bits):
    noise = ExtractionNoise(flip=0.3, seed=1)
    whole = noise.applied(index, items, bits)
    backwards = noise.applied(index, items[::-1], bits[::-1])[::-1]
    np.testing.assert_array_equal(whole, backwards)
    blank = noise.applied(index, items, np.zeros_like(bits))
    np.testing.assert_array_equal(blank, whole ^ bits)  # the same errors in another array
    other = ExtractionNoise(flip=0.3, seed=2).applied(index, items, bits)
    assert np.any(other != whole) and whole.shape[1] == NUM_BITS
