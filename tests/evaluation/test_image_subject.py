"""A model without a text tower is evaluated by its features alone."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest
from evaluation.frames import coloured

from endoclip_jax.data.tokenizer import load_tokenizer
from endoclip_jax.evaluation.evaluate import evaluate_detection
from endoclip_jax.evaluation.subjects import ImageSubject


class MeanColour(nn.Module):
    def setup(self):
        self.scale = self.variable("batch_stats", "scale", lambda: jnp.ones(3))

    def colour(self, pixels):
        mean = pixels.mean(axis=(1, 2)) * self.scale.value
        return jnp.concatenate([mean, jnp.ones_like(mean[:, :1])], axis=1)


def tenths(image):
    return image.astype(jnp.float32) / 10


@pytest.fixture(scope="module")
def subject():
    variables = {"batch_stats": {"scale": np.full(3, 2.0, np.float32)}}
    return ImageSubject("colour", MeanColour(), variables, 8, method="colour", normalise=tenths)


def test_features_are_the_modules_in_the_frames_order(subject):
    frames = coloured(30)
    features, truth = subject.embed(frames)
    assert list(truth.frames) == list(range(1, 30))  # the first cannot be read
    np.testing.assert_allclose(features[:, 0], frames.red[1:] / 5, rtol=1e-5)
    np.testing.assert_array_equal(features[:, 3], 1)


def test_it_has_few_shot_rows_and_dashes_for_zero_shot(subject):
    result = evaluate_detection(
        [subject], coloured(), load_tokenizer(), seed=0, draws=20, with_few_shot=True
    )
    values = {(row.setting, row.metric): row.value for row in result.rows}
    assert values["zero-shot", "auroc"] is None and values["zero-shot", "aupr"] is None
    assert values["10 %", "auroc"] > 0.95
    assert not result.scores and result.features["colour"].shape == (89, 4)
