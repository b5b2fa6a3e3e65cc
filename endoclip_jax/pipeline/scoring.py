"""Scores of many frames: shared out among processes, kept as they come, resumed where they stopped.

What a frame scores depends on the frame and the parameters alone, so any number of processes gives
the same scores, and chunks that one number of processes left behind serve another.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Float32, Int64

from endoclip_jax.data.loaders import scoring_batches
from endoclip_jax.data.prompts import SENTENCES
from endoclip_jax.errors import Stopped, UserError
from endoclip_jax.pipeline.chunks import Chunk, chunks_of
from endoclip_jax.stages.stage import Setting
from endoclip_jax.training import processes
from endoclip_jax.training.embedding import embed_frames, embed_texts

_BATCH = 256


def score_frames(
    setting: Setting, clip_params: Any, frames: Int64[np.ndarray, " n"]
) -> tuple[Float32[np.ndarray, " m"], Int64[np.ndarray, " m"]]:
    """`cos(v, polyps) − cos(v, background)` in fp32 for each frame row, and the rows scored.

    Ranking uses this difference; the softmax probability saturates at high temperature, and ties
    would then pick the frames. Frames that cannot be decoded are left out of both arrays. Every
    process of the setting scores its part and gets all.
    """
    share = -(-len(frames) // setting.process_count)
    own = frames[setting.process_index * share :][:share]
    scores = np.full(share, np.nan, np.float32)
    scores[: len(own)] = _scores(setting, _on_this_host(clip_params), own, share, "scoring")
    setting.rest()
    if setting.process_count > 1:
        scores = multihost_utils.process_allgather(scores, tiled=True)
    return _readable(scores[: len(frames)], frames)


def score_in_chunks(
    setting: Setting,
    clip_params: Any,
    frames: Int64[np.ndarray, " n"],
    *,
    folder: Path,
    chunk: int,
    weights: str,
) -> tuple[Float32[np.ndarray, " m"], Int64[np.ndarray, " m"]]:
    """As `score_frames`, leaving finished chunks of `chunk` frames in `folder` as it goes.

    Chunks that are there already, of the same data, frames and weights, are not scored again;
    others are counted, said and replaced. `folder` has to be the same for all processes (a shared
    file system).

    Args:
      weights: checksum of the parameters.

    Raises:
      Stopped: when asked to stop; the chunks stay.
      UserError: if a chunk cannot be written.
    """
    chunks = chunks_of(
        frames, chunk, folder=folder, data=setting.index.fingerprint, weights=weights
    )
    # As process 0 sees it: the others may have looked a moment later.
    missing, unfit = processes.first(lambda: _missing(chunks))
    params = _on_this_host(clip_params) if missing else None
    done = len(chunks) - len(missing)
    if done:
        setting.say(f"scoring: {done} of {len(chunks)} chunks are there already")
    if unfit:
        setting.say(
            f"scoring: {unfit} of {len(chunks)} chunks are damaged, or of other weights, data or "
            "frames, and are scored again"
        )
    for start in range(0, len(missing), setting.process_count):
        if setting.stop():
            raise Stopped(f"scoring stopped after {done} of {len(chunks)} chunks")
        together = missing[start : start + setting.process_count]
        for number in together[setting.process_index :][:1]:
            own, doing = chunks[number], f"scoring chunk {number + 1} of {len(chunks)}"
            own.write(_scores(setting, params, own.frames, chunk, doing))
        done += len(together)
    setting.rest()  # the others may have a whole chunk to go
    _meet(setting, f"scored by {weights}")
    scores = np.concatenate([own.await_written() for own in chunks])
    _meet(setting, f"read, scored by {weights}")  # only then may somebody clear the folder
    return _readable(scores, frames)


def _missing(chunks: list[Chunk]) -> tuple[list[int], int]:
    """Numbers of the chunks to score, and how many of these have a file of no use."""
    missing = [number for number, chunk in enumerate(chunks) if chunk.read() is None]
    return missing, sum(chunks[number].path.exists() for number in missing)


def _scores(
    setting: Setting, params: Any, frames: np.ndarray, most: int, doing: str
) -> Float32[np.ndarray, " n"]:
    """A score for each of at most `most` frames; NaN for one that cannot be decoded."""
    ids, _ = setting.tokenizer(list(SENTENCES))
    background, polyps = embed_texts(setting.model, params, ids)
    size = max(1, min(_BATCH, most))
    batches = scoring_batches(setting.index, frames, batch=size, image_size=setting.image_size)
    features, scored = embed_frames(setting.model, params, _watched(setting, batches, doing))
    computed = features @ (polyps - background)
    if not np.isfinite(computed).all():
        raise UserError(
            "the model gives scores that are no numbers: it has diverged; train it again with a "
            "smaller learning rate"
        )
    scores = np.full(len(frames), np.nan, np.float32)  # of those that cannot be decoded
    scores[np.isin(frames, scored)] = computed
    return scores


def _watched(setting: Setting, batches: Any, doing: str) -> Iterator[Any]:
    for number, batch in enumerate(batches, start=1):
        setting.step(f"{doing}, batch {number} of {len(batches)}")
        yield batch


def _meet(setting: Setting, where: str) -> None:
    if setting.process_count > 1:
        multihost_utils.sync_global_devices(where)


def _readable(scores: np.ndarray, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    readable = ~np.isnan(scores)
    return scores[readable], frames[readable]


def _on_this_host(params: Any) -> Any:
    """Parameters as arrays of this process alone, so that it computes without the others."""
    return jax.tree.map(
        lambda leaf: (
            multihost_utils.process_allgather(leaf, tiled=True)
            if isinstance(leaf, jax.Array)
            and not (leaf.is_fully_addressable or leaf.is_fully_replicated)
            else np.asarray(leaf)
        ),
        params,
    )
