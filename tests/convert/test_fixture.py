"""The fixture check: PyTorch's logits hold here, and every kind of wrong setup is refused."""

from __future__ import annotations

import dataclasses
import json
import sys

import make_fixture
import numpy as np
import pytest
from PIL import Image

from endoclip_jax.convert import fixture
from endoclip_jax.convert.fixture import (
    REFERENCE,
    check_installation,
    check_weights,
    fixture_logits,
    load_fixture,
    reference_params,
)
from endoclip_jax.convert.weights import Weights
from endoclip_jax.data import tokenizer, transforms
from endoclip_jax.errors import UserError
from endoclip_jax.training import embedding


@pytest.fixture(scope="module")
def logits():
    return tuple(map(float, fixture_logits(REFERENCE, reference_params())))


def weights(config=REFERENCE, logits=None) -> Weights:
    return Weights(config, reference_params(), "the test", fixture=logits)


def test_pytorchs_logits_hold_without_pytorch():
    for activation in ("quick_gelu", "gelu"):
        check_installation(activation)


def test_stored_logits_are_what_pytorch_gives_today(monkeypatch, capsys):
    """The script that made the fixture, asked anew."""
    monkeypatch.setattr(sys, "argv", ["make_fixture.py", "--check"])
    assert make_fixture.main() == 0, capsys.readouterr().out


def test_own_logits_are_accepted(logits):
    check_weights(weights(logits=logits))


@pytest.mark.parametrize("change", [{"activation": "gelu"}, {"layer_norm_eps": 1e-6}])
def test_another_activation_or_eps_is_refused(logits, change):
    with pytest.raises(UserError, match="activation, eps"):
        check_weights(weights(dataclasses.replace(REFERENCE, **change), logits))


def bilinear(pixels, size):
    return np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR))


def test_another_resize_is_refused(logits, monkeypatch):
    monkeypatch.setattr(transforms, "resize", bilinear)
    with pytest.raises(UserError, match="preprocessing"):
        check_weights(weights(logits=logits))


def test_another_normalisation_is_refused(logits, monkeypatch):
    monkeypatch.setattr(transforms, "CLIP_MEAN", (0.5, 0.5, 0.5))
    embedding._image_encoder.cache_clear()  # the constants are compiled in
    try:
        with pytest.raises(UserError, match="preprocessing"):
            check_weights(weights(logits=logits))
    finally:
        embedding._image_encoder.cache_clear()


def test_another_tokenizer_is_refused(logits, monkeypatch):
    monkeypatch.setattr(tokenizer, "START", 320)
    with pytest.raises(UserError, match="tokenizer"):
        check_weights(weights(logits=logits))


def test_changed_weights_are_refused(logits):
    changed = weights(logits=logits)
    changed.params["text"]["projection"]["kernel"][0] *= 1.5
    with pytest.raises(UserError, match="weights have changed"):
        check_weights(changed)


def test_weights_that_are_not_numbers_are_refused(logits):
    changed = weights(logits=logits)
    changed.params["vision"]["projection"]["kernel"][0, 0] = np.nan
    with pytest.raises(UserError, match="nan"):
        check_weights(changed)


def test_fixture_covers_every_kind_of_text():
    texts = load_fixture().texts
    ids, truncated = tokenizer.load_tokenizer()(texts)
    assert truncated == 1 and "" in texts
    assert any(ord(letter) > 0x4E00 for text in texts for letter in text)
    assert len({tuple(row) for row in ids.tolist()}) == len(texts)
    stored = json.loads((fixture.DATA / "fixture.json").read_text(encoding="utf-8"))
    assert np.ptp(stored["logits"]["gelu"]) > 1
