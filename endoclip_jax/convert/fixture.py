"""One image and a few texts whose logits are known: what a wrong setup is caught by, in a second.

`data/fixture.jpg` and `data/fixture.json` hold the image, the texts, and the logits that PyTorch's
`CLIPModel` gave for a small reference model (`tests/convert/make_fixture.py` made them, with Pillow
and transformers' own tokenizer). Two questions are asked before a run:

`check_installation`   do decoding, resizing, normalisation, tokenizer, towers and activation of
                       this installation still give PyTorch's logits?
`check_weights`        do these weights give the logits they gave when they were written?
"""

from __future__ import annotations

import functools
import json
import math
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import flax.traverse_util
import jax
import numpy as np
from jaxtyping import Float

from endoclip_jax.convert.names import clip_shapes
from endoclip_jax.convert.weights import Weights
from endoclip_jax.data.tokenizer import load_tokenizer
from endoclip_jax.data.transforms import eval_image
from endoclip_jax.errors import UserError
from endoclip_jax.models.clip import CLIP, LOGIT_SCALE_INIT, CLIPConfig, TextConfig, VisionConfig
from endoclip_jax.training.embedding import embed_frames, embed_texts

DATA = Path(__file__).parent / "data"
TOLERANCE = 1e-4  # of a cosine: rounding stays below 1e-6, another activation or eps gives 4e-3

REFERENCE = CLIPConfig(
    vision=VisionConfig(image_size=32, patch_size=8, width=16, layers=2, heads=2),
    text=TextConfig(width=16, layers=2, heads=2),
    embed_dim=12,
)
_SMALL = ("embedding", "patch_embedding")  # small inputs make the LayerNorms' eps count


class Fixture(NamedTuple):
    """The image's JPEG, the texts, and the reference model's logits for each activation."""

    jpeg: bytes
    texts: list[str]
    logits: dict[str, list[float]]


@functools.cache
def load_fixture() -> Fixture:
    """The fixture that came with this version."""
    content = json.loads((DATA / "fixture.json").read_text(encoding="utf-8"))
    jpeg = (DATA / "fixture.jpg").read_bytes()
    return Fixture(jpeg, content["texts"], content["logits"])


def reference_params() -> dict[str, Any]:
    """Weights of the reference model from integer arithmetic: the same on every machine."""
    flat = {}
    for path, shape in clip_shapes(REFERENCE).items():
        noise = _noise(zlib.crc32(path.encode()), math.prod(shape)).reshape(shape)
        *_, module, name = ("", *path.split("/"))
        if name == "scale":
            values = 1 + 0.3 * noise
        elif name.endswith("embedding") or module in _SMALL:
            values = 0.02 * noise
        elif name == "bias":
            values = 0.3 * noise
        else:
            values = 2.5 * shape[0] ** -0.5 * noise if shape else noise
        flat[path] = values.astype(np.float32)
    flat["logit_scale"] = np.asarray(LOGIT_SCALE_INIT, np.float32)
    return flax.traverse_util.unflatten_dict(flat, sep="/")


def fixture_logits(config: CLIPConfig, params: Any) -> Float[np.ndarray, " n"]:
    """exp(logit_scale) * cosine of the fixture's image and each text, in full float32."""
    fixture = load_fixture()
    model = CLIP(config)
    batch = {
        "image": eval_image(fixture.jpeg, config.vision.image_size)[None],
        "frame": np.zeros(1, np.int64),
        "valid": np.ones(1, bool),
    }
    ids, _ = load_tokenizer()(fixture.texts)
    with jax.default_matmul_precision("highest"):
        v, _ = embed_frames(model, params, [batch])
        t = embed_texts(model, params, ids)
    return math.exp(float(params["logit_scale"])) * (t @ v[0])


def check_installation(activation: str) -> None:
    """Refuses an installation whose reference logits are not PyTorch's.

    Raises:
      UserError: saying how far the logits are off, and for which text.
    """
    _compare(
        np.asarray(load_fixture().logits[activation]),
        _reference_logits(activation),
        math.exp(LOGIT_SCALE_INIT),
        f"this installation does not compute CLIP as PyTorch does (activation {activation})",
        "decoding, resizing, tokenizer or towers have changed: install the versions of "
        "constraints.txt",
    )


def check_weights(weights: Weights) -> None:
    """Refuses weights that no longer give the fixture the logits they were written with.

    Raises:
      UserError: saying how far the logits are off, and for which text.
    """
    if weights.fixture is None:
        return
    _compare(
        np.asarray(weights.fixture),
        fixture_logits(weights.config, weights.params),
        math.exp(float(weights.params["logit_scale"])),
        f"{weights.origin} does not give the logits it was written with",
        "its preprocessing, activation, eps or tokenizer is another, or its weights have changed: "
        "convert it again from its source",
    )


@functools.cache
def _reference_logits(activation: str) -> np.ndarray:
    values = {**REFERENCE.to_dict(), "activation": activation}
    return fixture_logits(CLIPConfig.from_dict(values), reference_params())


def _compare(expected: np.ndarray, got: np.ndarray, scale: float, what: str, remedy: str) -> None:
    if expected.shape != got.shape:
        raise UserError(f"{what}: {len(expected)} fixture logits for {len(got)} texts; {remedy}")
    distance = np.abs(expected - got) / scale
    if not np.all(distance <= TOLERANCE):
        worst = int(np.nanargmax(np.where(np.isnan(distance), np.inf, distance)))
        text = load_fixture().texts[worst][:40]
        raise UserError(
            f"{what}: logit {got[worst]:.4f} in place of {expected[worst]:.4f} for {text!r}; "
            f"{remedy}"
        )


def _noise(seed: int, count: int) -> np.ndarray:
    """Uniform in [-1, 1), by the finaliser of MurmurHash3 on counters."""
    x = np.arange(count, dtype=np.uint64) + np.uint64(seed) * np.uint64(2654435761)
    x = x.astype(np.uint32)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        x = (x ^ (x >> np.uint32(shift))) * np.uint32(factor)
    x ^= x >> np.uint32(16)
    return x / 2.0**31 - 1
