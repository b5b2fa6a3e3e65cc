"""Batches, options and measures that the tests of both implementations of the loss share."""

from __future__ import annotations

import numpy as np
from reference import losses as oracle

OPTIONS = [
    ("onehot", "l1"),
    ("multi_positive", "l1"),
    ("morphology", "l1"),
    ("morphology", "none"),
    ("morphology", ("power", 4.0)),
    ("morphology", ("power", 0.5)),
    ("morphology", ("softmax", 0.1)),
    ("morphology", ("softmax", 1.0)),
]


def random_batch(seed: int, size: int, width: int = 7, attributes: int = 9) -> dict:
    """Unit embeddings; attributes with duplicate rows, a zero row, and a_v unlike a_t."""
    rng = np.random.default_rng(seed)
    v, t = rng.normal(size=(2, size, width))
    a_v = (rng.random((size, attributes)) < 0.4).astype(np.float32)
    a_t = np.where(rng.random((size, attributes)) < 0.15, 1 - a_v, a_v).astype(np.float32)
    if size > 2:
        a_v[1], a_t[1], a_t[0] = a_v[0], a_v[0], a_v[0]
        a_v[2] = 0
    return {
        "v": (v / np.linalg.norm(v, axis=1, keepdims=True)).astype(np.float32),
        "t": (t / np.linalg.norm(t, axis=1, keepdims=True)).astype(np.float32),
        "a_v": a_v,
        "a_t": a_t,
    }


def random_mask(seed: int, size: int, share: float) -> np.ndarray:
    """Which rows are valid: this share of them, and one at least."""
    valid = np.random.default_rng(seed).random(size) < share
    valid[seed % size] = True
    return valid


def assert_is_the_oracle(result, batch, logit_scale, valid, target, norm, rtol=2e-5, atol=2e-6):
    """Value, excess, entropy and the gradients of both towers and of `logit_scale`."""
    (loss, terms), (by_v, by_t, by_scale) = result
    expected = oracle.contrastive_loss(
        batch["v"], batch["t"], float(logit_scale), batch["a_v"], batch["a_t"],
        valid=valid, target=target, norm=norm,
    )  # fmt: skip
    pairs = {
        "loss": (loss, expected["loss"]),
        "entropy": (terms["entropy"], expected["entropy"]),
        "excess": (terms["excess"], expected["loss"] - expected["entropy"]),
        "d_v": (by_v, expected["d_v"]),
        "d_t": (by_t, expected["d_t"]),
        "d_logit_scale": (by_scale, expected["d_logit_scale"]),
    }
    for name, (got, wanted) in pairs.items():
        np.testing.assert_allclose(
            np.asarray(got, np.float64), wanted, rtol, atol * (1 + np.exp(logit_scale)),
            err_msg=name,
        )  # fmt: skip
