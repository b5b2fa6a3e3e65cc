"""Zero-shot scores from embeddings: pure array functions in fp32, higher = polyp, = malignant.

A score is never flipped after a look at the labels: a model that ranks the wrong way round gets an
AUROC below one half, and that is the finding.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

_TINY = np.float32(1e-12)


def class_feature(text_features: Float[np.ndarray, "m d"]) -> Float[np.ndarray, " d"]:
    """The unit mean of a class's unit prompt features: one vector for an ensemble of sentences."""
    return unit(unit(text_features).mean(axis=0, dtype=np.float32))


def zero_shot_scores(
    v: Float[np.ndarray, "n d"],
    t_positive: Float[np.ndarray, " d"],
    t_negative: Float[np.ndarray, " d"],
    w_image: Float[np.ndarray, "d d"] | None = None,
    w_text: Float[np.ndarray, "d d"] | None = None,
) -> Float[np.ndarray, " n"]:
    """s(positive) − s(negative) with s(c) = cos(W_V^{tv} v, W_V^{vt} t_c) (Endo-CLIP, Eq. 4).

    With one image and one sentence the softmax of Eq. 4 is over a single element, so this is the
    function that stage 3 trained, at K = L = 1. `w_image` is the kernel of W_V^{tv} and `w_text`
    that of W_V^{vt}, both applied as `x @ kernel` like a Flax Dense. Both None: plain cosine, which
    for detection is the score that also ranks frames in stage 1. The softmax of the two cosines
    orders them in the same way but saturates to 1.0 at logit scale 100, where ties would choose;
    so nothing is ranked by it.
    """
    if (w_image is None) != (w_text is None):
        raise ValueError("w_image and w_text belong together: pass both or neither")
    if w_image is not None and w_text is not None:
        v = np.asarray(v, np.float32) @ np.asarray(w_image, np.float32)
        t_positive, t_negative = (
            np.asarray(t, np.float32) @ np.asarray(w_text, np.float32)
            for t in (t_positive, t_negative)
        )
    v = unit(v)
    return v @ unit(t_positive) - v @ unit(t_negative)


def unit(x: Float[np.ndarray, "*rows d"]) -> Float[np.ndarray, "*rows d"]:
    """The vectors at length one, in fp32."""
    x = np.asarray(x, np.float32)
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), _TINY)
