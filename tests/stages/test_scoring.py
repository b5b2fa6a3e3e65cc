"""Scores in chunks: stopped in the middle, taken up again, equal to one pass."""

from dataclasses import replace

import numpy as np
import pytest

from endoclip_jax.data.tokenizer import load_tokenizer
from endoclip_jax.errors import Stopped, UserError
from endoclip_jax.models.clip import CLIP, CLIPConfig, TextConfig, VisionConfig, initial_params
from endoclip_jax.shards.index import Index
from endoclip_jax.stages.scoring import score_frames, score_in_chunks
from endoclip_jax.stages.stage import Setting


def test_a_pass_that_was_stopped_goes_on_with_what_is_missing(tiny_shards, tmp_path):
    config = CLIPConfig(VisionConfig(32, 16, 32, 1, 1), TextConfig(width=16, layers=1, heads=1), 16)
    model = CLIP(config)
    params = initial_params(model, 0)
    asked = iter([False, False, True])
    said = []
    setting = Setting(Index.open(tiny_shards), model, load_tokenizer(), 0, say=said.append)
    frames = np.arange(10, 50)
    options = {"folder": tmp_path, "chunk": 16, "checkpoint": "stage1_round1/4"}
    with pytest.raises(Stopped, match="2 of 3 chunks"):
        score_in_chunks(replace(setting, stop=lambda: next(asked)), params, frames, **options)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")}
    assert len(written) == 2
    scores, scored = score_in_chunks(setting, params, frames, **options)
    assert said == ["scoring: 2 of 3 chunks are there already"]
    assert all(path.stat().st_mtime_ns == then for path, then in written.items())
    whole, rows = score_frames(setting, params, frames)
    np.testing.assert_array_equal(scored, rows)
    np.testing.assert_allclose(scores, whole, atol=1e-5)
    # of another checkpoint nothing is taken
    score_in_chunks(setting, params, frames, **options | {"checkpoint": "stage1_round1/8"})
    assert len(said) == 1 and len(list(tmp_path.rglob("*.npy"))) == 6
    # NaN stands for frames that cannot be decoded; a model that has diverged is no such frame
    broken = {"kernel": np.full_like(params["vision"]["projection"]["kernel"], np.nan)}
    diverged = {**params, "vision": {**params["vision"], "projection": broken}}
    with pytest.raises(UserError, match="diverged"):
        score_frames(setting, diverged, frames)
