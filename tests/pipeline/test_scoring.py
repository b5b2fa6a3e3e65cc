"""Scores in chunks: stopped in the middle, taken up again, equal to one pass, never another's."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from tiny_model import TINY_CLIP

from endoclip_jax.data.tokenizer import load_tokenizer
from endoclip_jax.errors import Stopped, UserError
from endoclip_jax.models.clip import CLIP, initial_params
from endoclip_jax.pipeline.chunks import Chunk, chunks_of
from endoclip_jax.pipeline.scoring import score_frames, score_in_chunks
from endoclip_jax.shards.index import Index
from endoclip_jax.stages.stage import Setting


def test_a_pass_that_was_stopped_goes_on_with_what_is_missing(tiny_shards, tmp_path):
    model = CLIP(TINY_CLIP)
    params = initial_params(model, 0)
    asked = iter([False, False, True])
    said, doing = [], []
    setting = Setting(
        Index.open(tiny_shards), model, load_tokenizer(), 0, say=said.append, step=doing.append
    )
    frames = np.arange(10, 50)
    options = {"folder": tmp_path / "scoring", "chunk": 16, "weights": "those of step 4"}
    with pytest.raises(Stopped, match="2 of 3 chunks"):
        score_in_chunks(replace(setting, stop=lambda: next(asked)), params, frames, **options)
    assert doing == [f"scoring chunk {n} of 3, batch 1 of 1" for n in (1, 2)]
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npz")}
    assert len(written) == 2
    scores, scored = score_in_chunks(setting, params, frames, **options)
    assert said == ["scoring: 2 of 3 chunks are there already"]
    assert all(path.stat().st_mtime_ns == then for path, then in written.items())
    whole, rows = score_frames(setting, params, frames)
    np.testing.assert_array_equal(scored, rows)
    np.testing.assert_allclose(scores, whole, atol=1e-5)

    # One of the right name but of other frames, and one cut short: counted, said, replaced.
    shutil.copy(tmp_path / "scoring" / "000000.npz", tmp_path / "scoring" / "000001.npz")
    last = tmp_path / "scoring" / "000002.npz"
    last.write_bytes(last.read_bytes()[:-30])
    again, _ = score_in_chunks(setting, params, frames, **options)
    np.testing.assert_array_equal(again, scores)
    assert said[1] == "scoring: 1 of 3 chunks are there already"
    assert said[2].startswith("scoring: 2 of 3 chunks are damaged, or of other weights")
    # Of other weights nothing is taken.
    score_in_chunks(setting, params, frames, **options | {"weights": "those of step 8"})
    assert len(said) == 4 and said[3].startswith("scoring: 3 of 3 chunks are damaged")
    # NaN stands for frames that cannot be decoded; a model that has diverged is no such frame
    broken = {"kernel": np.full_like(params["vision"]["projection"]["kernel"], np.nan)}
    diverged = {**params, "vision": {**params["vision"], "projection": broken}}
    with pytest.raises(UserError, match="diverged"):
        score_frames(setting, diverged, frames)


def chunk_of(folder, frames=range(7), data="cohort", weights="trained"):
    """The one file for these frames."""
    (chunk,) = chunks_of(np.asarray(frames), 100, folder=folder, data=data, weights=weights)
    return chunk


@pytest.mark.parametrize(
    "other", [{"frames": range(1, 8)}, {"frames": range(6)}, {"data": "two"}, {"weights": "again"}]
)
def test_a_chunk_belongs_to_its_frames_data_and_weights(tmp_path, other):
    scores = np.arange(7, dtype=np.float32)
    chunk_of(tmp_path).write(scores)
    np.testing.assert_array_equal(chunk_of(tmp_path).read(), scores)
    assert chunk_of(tmp_path, **other).read() is None


def test_a_chunk_of_the_right_digest_and_another_length_is_none(tmp_path):
    chunk = chunk_of(tmp_path)
    shorter = Chunk(chunk.path, chunk.frames[:5], chunk.digest)
    shorter.write(np.zeros(5, np.float32))
    assert chunk.read() is None and shorter.read() is not None


def test_a_flipped_bit_anywhere_in_the_scores_is_found(tmp_path):
    chunk = chunk_of(tmp_path)
    scores = np.linspace(1, 2, 7, dtype=np.float32)
    chunk.write(scores)
    content = chunk.path.read_bytes()
    start = content.index(scores.tobytes())
    for place in range(start, start + scores.nbytes):
        damaged = bytearray(content)
        damaged[place] ^= 4
        chunk.path.write_bytes(damaged)
        assert chunk.read() is None
    for other in (b"", b"no archive", content[: len(content) // 2]):
        chunk.path.write_bytes(other)
        assert chunk.read() is None


def test_a_full_disk_is_one_sentence_and_leaves_the_other_chunks(tmp_path):
    first, second = chunks_of(
        np.arange(8), 4, folder=tmp_path / "scoring", data="cohort", weights="trained"
    )
    first.write(np.zeros(4, np.float32))
    (tmp_path / "scoring" / "000001.partial").symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"No space left on device.*make room and run") as error:
        second.write(np.ones(4, np.float32))
    assert "\n" not in str(error.value)
    assert [path.name for path in (tmp_path / "scoring").iterdir()] == ["000000.npz"]
    assert first.read() is not None and second.read() is None
    second.write(np.ones(4, np.float32))
    assert second.read() is not None
