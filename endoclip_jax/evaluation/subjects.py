"""What is evaluated: models with both towers, and models that only see images.

Zero-shot, retrieval and attention need a text tower. Few-shot and the linear probe need features
of frames alone, so they serve a ResNet or a self-supervised vision tower just as well: such a model
is an `ImageSubject`, and the cells it cannot fill stay dashes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from endoclip_jax.data.tokenizer import Tokenizer
from endoclip_jax.data.transforms import normalize
from endoclip_jax.evaluation.frame_sets import FrameSet, Truth
from endoclip_jax.evaluation.zero_shot import unit
from endoclip_jax.models.clip import CLIP
from endoclip_jax.models.cross_attention import CrossAttention
from endoclip_jax.training.embedding import embed_batches, embed_frames, embed_texts


@dataclass(frozen=True)
class Subject:
    """A CLIP to evaluate: its towers and, after stage 3, the value kernels of its attention.

    `value_image` is W_V^{tv}, `value_text` W_V^{vt}; None where plain cosine is the trained score.
    `attention` is stage 3's module and its parameters, None where it trained none.
    """

    name: str
    model: CLIP
    params: Any
    value_image: np.ndarray | None = None
    value_text: np.ndarray | None = None
    attention: tuple[CrossAttention, Any] | None = None

    @property
    def scale(self) -> float:
        """What cosines are multiplied by before a softmax makes probabilities of them."""
        return math.exp(float(self.params["logit_scale"]))

    def embed(self, frames: FrameSet) -> tuple[np.ndarray, Truth]:
        """Unit features `[n, d]` of the set's readable frames, with their truth."""
        size = self.model.config.vision.image_size
        features, ids = embed_frames(self.model, self.params, frames.batches(size))
        return features, frames.truth(ids)

    def texts(self, tokenizer: Tokenizer, sentences: Sequence[str]) -> np.ndarray:
        """Unit text features `[n, d]` of some sentences."""
        return embed_texts(self.model, self.params, tokenizer(list(sentences))[0])

    def similarity(self, v: np.ndarray, t: np.ndarray) -> np.ndarray:
        """Cosines `[n, m]` of the trained function for single images and single texts."""
        if self.value_image is not None and self.value_text is not None:
            v, t = v @ np.asarray(self.value_image), t @ np.asarray(self.value_text)
        return unit(v) @ unit(t).T


@dataclass(frozen=True)
class ImageSubject:
    """A model without a text tower: any Linen module that turns pixels into a vector.

    Attributes:
      model: called as `model.apply(variables, pixels, method=method)`, pixels float [b, s, s, 3]
        normalised, result [b, d] of any length.
      variables: all of its collections: `{"params": ..., "batch_stats": ...}`.
      image_size: side s of the squares it reads.
      method: a method of the module, by name.
      normalise: uint8 pixels to the floats that the model was trained on; CLIP's mean and standard
        deviation unless another is given.
    """

    name: str
    model: nn.Module
    variables: Mapping[str, Any]
    image_size: int
    method: str = "__call__"
    normalise: Callable[[jax.Array], jax.Array] = normalize

    def embed(self, frames: FrameSet) -> tuple[np.ndarray, Truth]:
        """Features `[n, d]` of the set's readable frames, with their truth."""
        encode = _encoder(self.model, self.method, self.normalise)
        features, ids = embed_batches(encode, self.variables, frames.batches(self.image_size))
        return features, frames.truth(ids)


AnySubject = Subject | ImageSubject


@functools.lru_cache(maxsize=32)
def _encoder(
    model: nn.Module, method: str, normalise: Callable[[jax.Array], jax.Array]
) -> Callable[[Any, Any], jax.Array]:
    return jax.jit(lambda variables, image: model.apply(variables, normalise(image), method=method))
