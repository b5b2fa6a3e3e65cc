"""Scores of many frames: shared out among processes, kept as they come, resumed where they stopped.

What a frame scores depends on the frame and the parameters alone, so any number of processes gives
the same scores, and chunks that one number of processes left behind serve another.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Float32, Int64

from endoclip_jax.data.loaders import scoring_batches
from endoclip_jax.data.prompts import BACKGROUND, POLYPS
from endoclip_jax.errors import Stopped, UserError
from endoclip_jax.stages.embedding import embed_frames, embed_texts
from endoclip_jax.stages.stage import Setting

SENTENCES = (BACKGROUND, POLYPS)  # row 0 and row 1 of the text embeddings: the label is the row
_BATCH = 256
_PATIENCE = 60  # seconds


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
    scores[: len(own)] = _scores(setting, _on_this_host(clip_params), own, share)
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
    checkpoint: str,
) -> tuple[Float32[np.ndarray, " m"], Int64[np.ndarray, " m"]]:
    """As `score_frames`, leaving finished chunks of `chunk` frames in `folder` as it goes.

    Chunks that are there already, of the same data, frames and checkpoint, are not scored again.
    `folder` has to be the same for all processes (a shared file system).

    Raises:
      Stopped: when asked to stop; the chunks stay.
    """
    folder = folder / _digest(setting, frames, chunk, checkpoint)
    pieces = np.split(frames, range(chunk, len(frames), chunk))
    paths = [folder / f"{number:06d}.npy" for number in range(len(pieces))]
    folder.mkdir(parents=True, exist_ok=True)
    there = _of_first(np.asarray([path.exists() for path in paths], bool))
    missing = np.flatnonzero(~there)
    params = _on_this_host(clip_params) if missing.size else None
    done = int(there.sum())
    if done:
        setting.say(f"scoring: {done} of {len(pieces)} chunks are there already")
    for round_start in range(0, len(missing), setting.process_count):
        if setting.stop():
            raise Stopped(f"scoring stopped after {done} of {len(pieces)} chunks")
        mine = missing[round_start + setting.process_index :][:1]
        if round_start + setting.process_index < len(missing):
            number = int(mine[0])
            _save(paths[number], _scores(setting, params, pieces[number], chunk))
        done += min(setting.process_count, len(missing) - round_start)
    setting.rest()  # the others may have a whole chunk to go
    _meet(setting, f"scored {folder.name}")
    scores = np.concatenate([_load(path) for path in paths])
    _meet(setting, f"read {folder.name}")  # only then may somebody clear the folder
    return _readable(scores, frames)


def _scores(setting: Setting, params: Any, frames: np.ndarray, most: int) -> np.ndarray:
    """A score for each of at most `most` frames; NaN for one that cannot be decoded."""
    ids, _ = setting.tokenizer(list(SENTENCES))
    background, polyps = embed_texts(setting.model, params, ids)
    size = max(1, min(_BATCH, most))
    batches = scoring_batches(setting.index, frames, batch=size, image_size=setting.image_size)
    features, scored = embed_frames(setting.model, params, _watched(setting, batches))
    computed = features @ (polyps - background)
    if not np.isfinite(computed).all():
        raise UserError(
            "the model gives scores that are no numbers: it has diverged; train it again with a "
            "smaller learning rate"
        )
    scores = np.full(len(frames), np.nan, np.float32)  # of those that cannot be decoded
    scores[np.isin(frames, scored)] = computed
    return scores


def _watched(setting: Setting, batches: Any) -> Iterator[Any]:
    for number, batch in enumerate(batches, start=1):
        setting.step(f"scoring, batch {number} of {len(batches)}")
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


def _of_first(value: np.ndarray) -> np.ndarray:
    """Process 0's value: the others may have looked a moment later."""
    return np.asarray(multihost_utils.broadcast_one_to_all(value))


def _digest(setting: Setting, frames: np.ndarray, chunk: int, checkpoint: str) -> str:
    name = f"{setting.index.fingerprint}\x1f{chunk}\x1f{checkpoint}\x1f".encode()
    return hashlib.sha256(name + np.ascontiguousarray(frames).tobytes()).hexdigest()[:16]


def _save(path: Path, scores: np.ndarray) -> None:
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        np.save(file, scores)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def _load(path: Path) -> np.ndarray:
    """A chunk that is written; a network file system may show it to other hosts a moment late."""
    for _ in range(_PATIENCE):
        if path.exists():
            break
        time.sleep(1)
    return np.load(path)
