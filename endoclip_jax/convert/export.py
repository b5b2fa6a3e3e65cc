"""Weights written as a checkpoint of ours, as a Hugging Face folder, or under open_clip's names."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from endoclip_jax.convert.companions import PREPROCESSOR_FILE
from endoclip_jax.convert.configurations import to_huggingface, to_open_clip
from endoclip_jax.convert.fixture import fixture_logits, load_fixture
from endoclip_jax.convert.foreign import (
    CROSS_ATTENTION_FILE,
    FIXTURE_FILE,
    HF_CONFIG,
    HF_WEIGHTS,
    OPEN_CLIP_CONFIG,
    OPEN_CLIP_WEIGHTS,
)
from endoclip_jax.convert.names import Naming, clip_rows, cross_attention_rows, to_theirs
from endoclip_jax.convert.weights import Weights
from endoclip_jax.data.tokenizer import load_tokenizer
from endoclip_jax.data.transforms import CLIP_MEAN, CLIP_STD, PREPROCESSING
from endoclip_jax.errors import UserError
from endoclip_jax.training.checkpoints import Best, Checkpoints

_NEWEST = Best("step", True)
_START, _END = "<|startoftext|>", "<|endoftext|>"


def folded(weights: Weights) -> Weights:
    """Stage 3's value matrices multiplied into the projections: a plain CLIP of the same scores.

    `cos(W_V^{tv} P_v h, W_V^{vt} P_t g)` is the cosine of a CLIP with projections `W_V^{tv} P_v`
    and `W_V^{vt} P_t` (Endo-CLIP, Eq. 4 at K = L = 1). The plain embeddings are given up for it.
    """
    if weights.cross is None:
        raise UserError(f"{weights.origin} has no cross-attention to fold in: leave --fold out")
    params = {**weights.params}
    for tower, way in (("vision", "text_to_image"), ("text", "image_to_text")):
        value = np.asarray(weights.cross[way]["value"]["kernel"], np.float64)
        kernel = np.asarray(params[tower]["projection"]["kernel"], np.float64) @ value
        params[tower] = {**params[tower], "projection": {"kernel": kernel.astype(np.float32)}}
    return dataclasses.replace(
        weights,
        params=params,
        cross=None,
        attention={},
        fixture=None,
        notes=(*weights.notes, "the cross-attention's value matrices are folded in"),
    )


def write_checkpoint(weights: Weights, folder: Path) -> None:
    """A checkpoint of step 0 that stages, `predict.py` and `evaluate.py` start from."""
    _claim(folder)
    params: dict[str, Any] = {"clip": dict(weights.params)}
    if weights.cross is not None:
        params["cross"] = dict(weights.cross)
    checkpoints = Checkpoints(folder, _NEWEST)
    checkpoints.save(
        0,
        {"params": params},
        {
            "stage": "converted",
            "source": weights.origin,
            "model": weights.config.to_dict(),
            "preprocessing": PREPROCESSING,
            "tokenizer": load_tokenizer().sha256,
            "config": dict(weights.attention),
            "fixture": [float(x) for x in fixture_logits(weights.config, weights.params)],
            "step": 0,
            "steps": 0,
            "best": {"metric": _NEWEST.metric, "larger": _NEWEST.larger},
            "validation": {},
        },
    )
    checkpoints.wait()
    checkpoints.close()


def write_huggingface(weights: Weights, folder: Path) -> None:
    """A folder that `CLIPModel.from_pretrained` and `CLIPProcessor.from_pretrained` load."""
    _claim(folder)
    config = to_huggingface(weights.config, float(weights.params["logit_scale"]))
    _write_json(folder / HF_CONFIG, config)
    _write_tensors(folder / HF_WEIGHTS[0], weights, "huggingface")
    size = {"height": weights.config.vision.image_size, "width": weights.config.vision.image_size}
    _write_json(
        folder / PREPROCESSOR_FILE,
        {
            "image_processor_type": "CLIPImageProcessor",
            "processor_class": "CLIPProcessor",
            "do_convert_rgb": True,
            "do_resize": True,
            "size": size,
            "resample": 3,
            "do_center_crop": False,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": list(CLIP_MEAN),
            "image_std": list(CLIP_STD),
        },
    )
    write_tokenizer(folder, weights.config.text.context_length)
    _write_companions(folder, weights, "transformers' CLIPModel and CLIPProcessor")


def write_open_clip(weights: Weights, folder: Path) -> None:
    """`open_clip_config.json` and `open_clip_model.safetensors`, OpenAI's parameter names."""
    _claim(folder)
    _write_json(folder / OPEN_CLIP_CONFIG, to_open_clip(weights.config))
    _write_tensors(folder / OPEN_CLIP_WEIGHTS[0], weights, "openai")
    _write_companions(folder, weights, "open_clip (local-dir:FOLDER)")


def _claim(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is there already and not empty: give another --out")
    folder.mkdir(parents=True, exist_ok=True)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_tensors(path: Path, weights: Weights, naming: Naming) -> None:
    tensors = to_theirs(weights.params, clip_rows(weights.config), naming)
    save_file(tensors, path, metadata={"format": "pt"})  # transformers asks for the format


def write_tokenizer(folder: Path, context_length: int) -> None:
    tokenizer = load_tokenizer()
    _write_json(folder / "vocab.json", {s: number for number, s in enumerate(tokenizer.symbols)})
    merges = ["#version: 0.2", *(f"{first} {second}" for first, second in tokenizer.merges)]
    (folder / "merges.txt").write_text("\n".join(merges) + "\n", encoding="utf-8")
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "CLIPTokenizer",
            "bos_token": _START,
            "eos_token": _END,
            "pad_token": _END,
            "unk_token": _END,
            "do_lower_case": True,
            "model_max_length": context_length,
        },
    )


def _write_companions(folder: Path, weights: Weights, reader: str) -> None:
    logits = [float(x) for x in fixture_logits(weights.config, weights.params)]
    _write_json(folder / FIXTURE_FILE, {"texts": load_fixture().texts, "logits": logits})
    if weights.cross is not None:
        tensors = to_theirs(weights.cross, cross_attention_rows(), "huggingface")
        header = {"format": "pt", "cross_attention": json.dumps(dict(weights.attention))}
        save_file(tensors, folder / CROSS_ATTENTION_FILE, metadata=header)
    (folder / "README.md").write_text(_readme(weights, reader), encoding="utf-8")


def _readme(weights: Weights, reader: str) -> str:
    size = weights.config.vision.image_size
    text = f"""\
# Endo-CLIP weights

Written by endoclip_jax for {reader}. Research software, not a medical device.

Images: cut to the endoscope's field of view, then the *whole* frame resized to {size}x{size}
(Pillow's bicubic, no centre crop), CLIP's mean and std. Texts: CLIP's tokenizer, 77 tokens.
`{FIXTURE_FILE}` holds the logits of endoclip_jax's fixture image and texts under these weights.
"""
    if weights.cross is None:
        return text
    return (
        text
        + f"""
## Cross-attention

`{CROSS_ATTENTION_FILE}` holds stage 3's matrices as torch `Linear` weights, `[out, in]`, no bias:
`image_to_text.*` (W^vt, images ask, texts answer) and `text_to_image.*` (W^tv), each `query`, `key`
and `value`. Mode `{weights.attention["attention"]}`, LayerNorm without parameters (eps 1e-6) before
query and key: {weights.attention["qk_norm"]}, residual: {weights.attention["residual"]}.

The zero-shot score of unit embeddings `v` of an image and `t` of a text is

    cosine(v @ text_to_image.value.weight.T, t @ image_to_text.value.weight.T)

`launch/convert.py --fold` multiplies both value matrices into the projections instead, so that a
plain CLIP gives this score.
"""
    )
