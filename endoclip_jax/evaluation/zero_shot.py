"""Zero-shot scores from embeddings: pure array functions in fp32, higher = polyp, = malignant.

A score is never flipped after a look at the labels: a model that ranks the wrong way round gets an
AUROC below one half, and that is the finding.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

_TINY = np.float32(1e-12)


def detection_scores(
    v: Float[np.ndarray, "n d"],
    t_polyp: Float[np.ndarray, " d"],
    t_background: Float[np.ndarray, " d"],
) -> Float[np.ndarray, " n"]:
    """cos(v, t_polyp) − cos(v, t_background), the score that also ranks frames in stage 1.

    The softmax of the two cosines orders the frames in the same way but saturates to 1.0 at
    logit scale 100, where ties would choose; so nothing is ranked by it.
    """
    v = _unit(v)
    return v @ _unit(t_polyp) - v @ _unit(t_background)


def class_feature(text_features: Float[np.ndarray, "m d"]) -> Float[np.ndarray, " d"]:
    """The unit mean of a class's unit prompt features: one vector for an ensemble of sentences."""
    return _unit(_unit(text_features).mean(axis=0, dtype=np.float32))


def malignancy_scores(
    v: Float[np.ndarray, "n d"],
    t_malignant: Float[np.ndarray, " d"],
    t_benign: Float[np.ndarray, " d"],
    w_image: Float[np.ndarray, "d d"] | None = None,
    w_text: Float[np.ndarray, "d d"] | None = None,
) -> Float[np.ndarray, " n"]:
    """s(malignant) − s(benign) with s(c) = cos(W_V^{tv} v, W_V^{vt} t_c) (Endo-CLIP, Eq. 4).

    With one image and one sentence the softmax of Eq. 4 is over a single element, so this is the
    function that stage 3 trained, at K = L = 1. `w_image` is the kernel of W_V^{tv} and `w_text`
    that of W_V^{vt}, both applied as `x @ kernel` like a Flax Dense. Both None: plain cosine.
    """
    if (w_image is None) != (w_text is None):
        raise ValueError("w_image and w_text belong together: pass both or neither")
    if w_image is not None and w_text is not None:
        v, t_malignant, t_benign = (
            np.asarray(x, np.float32) @ np.asarray(w, np.float32)
            for x, w in ((v, w_image), (t_malignant, w_text), (t_benign, w_text))
        )
    v = _unit(v)
    return v @ _unit(t_malignant) - v @ _unit(t_benign)


def _unit(x: Float[np.ndarray, "*rows d"]) -> Float[np.ndarray, "*rows d"]:
    x = np.asarray(x, np.float32)
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), _TINY)
