"""Embeddings of many frames and texts with a trained model, batch by batch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np

from endoclip_jax.data.transforms import normalize
from endoclip_jax.models.clip import CLIP
from endoclip_jax.training.sharding import data_mesh, over_data, replicate, replicated

_TEXTS = 16  # in one call of the text tower


@functools.lru_cache(maxsize=32)
def _image_encoder(model: CLIP) -> Callable[[Any, Any], jax.Array]:
    return jax.jit(
        lambda params, image: model.apply(
            {"params": params}, normalize(image), method="encode_image"
        )
    )


@functools.lru_cache(maxsize=32)
def _text_encoder(model: CLIP) -> Callable[[Any, Any], jax.Array]:
    return jax.jit(lambda params, ids: model.apply({"params": params}, ids, method="encode_text"))


def embed_frames(
    model: CLIP, params: Any, batches: Iterable[Mapping[str, np.ndarray]]
) -> tuple[np.ndarray, np.ndarray]:
    """Unit image embeddings `[n, d]` in fp32 and the frame ids `[n]` they belong to.

    Args:
      params: the CLIP tree (`vision`, `text`, `logit_scale`).
        They are laid on all devices of this process, and each batch is split over them.
      batches: `image` uint8 [b, s, s, 3], `frame` int64 [b], `valid` bool [b]; rows that are not
        valid (padding, frames that cannot be decoded) are left out.
    """
    features, frames = embed_batches(_image_encoder(model), params, batches)
    if not len(frames):
        return np.zeros((0, model.config.embed_dim), np.float32), frames
    return features, frames


def embed_batches(
    encode: Callable[[Any, Any], jax.Array],
    params: Any,
    batches: Iterable[Mapping[str, np.ndarray]],
) -> tuple[np.ndarray, np.ndarray]:
    """Features `[n, d]` in fp32 of any compiled encoder, and the frame ids `[n]` they belong to.

    Args:
      encode: (params, uint8 images [b, s, s, 3]) to features [b, d].
      batches: as for `embed_frames`.
    """
    mesh = data_mesh(jax.local_devices())
    params = replicate(params, mesh)
    features: list[np.ndarray] = []
    frames: list[np.ndarray] = []
    for batch in batches:
        keep = np.asarray(batch["valid"])
        divides = len(keep) % mesh.size == 0
        image = jax.device_put(batch["image"], over_data(mesh) if divides else replicated(mesh))
        features.append(np.asarray(encode(params, image), np.float32)[keep])
        frames.append(np.asarray(batch["frame"])[keep])
    if not features:
        return np.zeros((0, 0), np.float32), np.zeros((0,), np.int64)
    return np.concatenate(features), np.concatenate(frames)


def embed_texts(model: CLIP, params: Any, ids: np.ndarray) -> np.ndarray:
    """Unit text embeddings `[n, d]` in fp32 of token ids `[n, l]`."""
    encode = _text_encoder(model)
    count, length = ids.shape
    # Of one shape whatever comes, so that one program serves all; padding changes no feature.
    rows = max(1, -(-count // _TEXTS)) * _TEXTS
    padded = np.zeros((rows, model.config.text.context_length), np.int32)
    padded[:count, :length] = ids
    parts = [np.asarray(encode(params, part)) for part in np.split(padded, rows // _TEXTS)]
    return np.concatenate(parts)[:count]
