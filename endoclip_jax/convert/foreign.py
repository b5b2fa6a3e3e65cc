"""Weights from another project's files: Hugging Face's and open_clip's folders, bare tensor files.

Nothing here imports PyTorch, opens a connection or runs what a file contains.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors

from endoclip_jax.convert.companions import (
    check_open_clip_preprocessing,
    check_preprocessor,
    check_tokenizer,
    read_json,
)
from endoclip_jax.convert.configurations import (
    OPENAI_SCALARS,
    from_huggingface,
    from_open_clip,
    from_openai,
)
from endoclip_jax.convert.names import (
    Naming,
    clip_rows,
    clip_shapes,
    cross_attention_rows,
    cross_attention_shapes,
    to_ours,
)
from endoclip_jax.convert.torch_file import read_torch_file
from endoclip_jax.convert.weights import Weights
from endoclip_jax.errors import UserError
from endoclip_jax.models.clip import CLIPConfig
from endoclip_jax.models.cross_attention import MODES

HF_CONFIG, HF_WEIGHTS = "config.json", ("model.safetensors", "pytorch_model.bin")
OPEN_CLIP_CONFIG = "open_clip_config.json"
OPEN_CLIP_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
CROSS_ATTENTION_FILE = "cross_attention.safetensors"
FIXTURE_FILE = "fixture_logits.json"
_BUFFERS = ("text_model.embeddings.position_ids", "vision_model.embeddings.position_ids")
_TEXT_PREFIX = "text."  # open_clip's class for custom text towers


def is_foreign(path: Path) -> bool:
    """Whether the path is one that `read_foreign` takes."""
    if path.is_dir():
        return any((path / name).is_file() for name in (HF_CONFIG, OPEN_CLIP_CONFIG))
    return path.suffix in (".safetensors", ".bin", ".pt", ".pth")


def foreign_config(path: Path) -> CLIPConfig:
    """The model's configuration; of a folder, without reading its weights.

    Raises:
      UserError: as `read_foreign`.
    """
    return _folder_config(path)[0] if path.is_dir() else read_foreign(path).config


def read_foreign(path: Path, activation: str | None = None) -> Weights:
    """Weights of a folder or a bare file of tensors.

    Args:
      activation: `quick_gelu` or `gelu`, for a bare file, which does not say; OpenAI's own files
        need none.

    Raises:
      UserError: naming file and key for anything missing, unknown, damaged, or of another function.
    """
    return _read_folder(path) if path.is_dir() else _read_file(path, activation)


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """All tensors of a `.safetensors` or PyTorch file, by name."""
    if path.suffix != ".safetensors":
        return read_torch_file(path)
    try:
        with safetensors.safe_open(path, framework="np") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError) as error:
        raise UserError(f"{path} cannot be read ({error}): it is cut short or damaged") from None


def _folder_config(folder: Path) -> tuple[CLIPConfig, Naming]:
    path = folder / HF_CONFIG
    if path.is_file() and not _is_open_clips(folder):
        config = from_huggingface(read_json(path), str(path))
        check_preprocessor(folder)
        naming: Naming = "huggingface"
    else:
        path = folder / OPEN_CLIP_CONFIG
        given = read_json(path)
        config = from_open_clip(given, str(path))
        check_open_clip_preprocessing(given, str(path))
        naming = "openai"
    check_tokenizer(folder, config.text.vocab_size, config.text.context_length)
    return config, naming


def _is_open_clips(folder: Path) -> bool:
    """Whether only open_clip's form is whole; some published folders hold both."""
    has_weights = any(
        (folder / f"{n}{i}").is_file() for n in HF_WEIGHTS for i in ("", ".index.json")
    )
    return (folder / OPEN_CLIP_CONFIG).is_file() and not has_weights


def _read_folder(folder: Path) -> Weights:
    config, naming = _folder_config(folder)
    tensors = _folder_tensors(folder, HF_WEIGHTS if naming == "huggingface" else OPEN_CLIP_WEIGHTS)
    cross, attention = _cross_attention(folder, config.embed_dim)
    return Weights(
        config=config,
        params=_params(tensors, config, naming, str(folder)),
        origin=str(folder),
        cross=cross,
        attention=attention,
        fixture=_fixture(folder),
        notes=_precision_notes(tensors, str(folder)),
    )


def _folder_tensors(folder: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    for name in names:
        if (folder / name).is_file():
            return read_tensors(folder / name)
        index = folder / f"{name}.index.json"
        if index.is_file():
            parts = sorted(set(read_json(index).get("weight_map", {}).values()))
            missing = [part for part in parts if not _inside(folder, part).is_file()]
            if missing:
                raise UserError(f"{index} names {missing[0]}, which is not in {folder}")
            return {k: v for part in parts for k, v in read_tensors(folder / part).items()}
    raise UserError(f"{folder} has no weights: expected {' or '.join(names)}")


def _inside(folder: Path, name: str) -> Path:
    path = folder / name
    if path.parent != folder:
        raise UserError(f"{folder} names {name}, which leads out of it")
    return path


def _read_file(path: Path, activation: str | None) -> Weights:
    if not path.is_file():
        raise UserError(f"{path} is not there")
    tensors = read_tensors(path)
    is_openai = set(OPENAI_SCALARS) <= tensors.keys()
    if activation is None and not is_openai:
        raise UserError(
            f"{path} says not which activation it was trained with: convert it with "
            "launch/convert.py --activation=quick_gelu (OpenAI's) or --activation=gelu"
        )
    tensors = _without_prefixes(tensors)
    config = from_openai(tensors, activation or "quick_gelu", str(path))
    check_tokenizer(path.parent, config.text.vocab_size, config.text.context_length)
    note = (
        f"{path} holds no configuration: {config.vision.heads} image and {config.text.heads} text "
        f"heads of 64, activation {config.activation}, layer_norm_eps {config.layer_norm_eps}"
    )
    return Weights(
        config=config,
        params=_params(tensors, config, "openai", str(path)),
        origin=str(path),
        notes=(note, *_precision_notes(tensors, str(path))),
    )


def _without_prefixes(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Names as OpenAI's, whatever wrapped the model: DistributedDataParallel, a text class."""
    plain = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    if any(name.startswith(f"{_TEXT_PREFIX}transformer.") for name in plain):
        plain = {name.removeprefix(_TEXT_PREFIX): tensor for name, tensor in plain.items()}
    return plain


def _params(
    tensors: Mapping[str, np.ndarray], config: CLIPConfig, naming: Naming, where: str
) -> dict[str, Any]:
    """The parameter tree; buffers that only repeat the configuration are checked and dropped."""
    kept = dict(_without_prefixes(tensors)) if naming == "openai" else dict(tensors)
    constants: dict[str, Any] = {
        _BUFFERS[0]: np.arange(config.text.context_length),
        _BUFFERS[1]: np.arange((config.vision.image_size // config.vision.patch_size) ** 2 + 1),
        "input_resolution": config.vision.image_size,
        "context_length": config.text.context_length,
        "vocab_size": config.text.vocab_size,
    }
    for name, expected in constants.items():
        if name in kept and not np.array_equal(np.ravel(kept.pop(name)), np.ravel(expected)):
            raise UserError(f"{where}: {name} is not what the sizes of the model make it")
    return to_ours(kept, clip_rows(config), clip_shapes(config), naming, where)


def _cross_attention(folder: Path, dim: int) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    path = folder / CROSS_ATTENTION_FILE
    if not path.is_file():
        return None, {}
    tensors = read_tensors(path)
    try:
        with safetensors.safe_open(path, framework="np") as file:
            header = json.loads((file.metadata() or {})["cross_attention"])
        attention = {key: header[key] for key in ("attention", "qk_norm", "residual")}
    except (KeyError, ValueError):
        raise UserError(f"{path} says not how its attention works: it is not of ours") from None
    if attention["attention"] not in MODES:
        raise UserError(f"{path}: attention mode {attention['attention']!r} is not known")
    rows, shapes = cross_attention_rows(), cross_attention_shapes(dim)
    return to_ours(tensors, rows, shapes, "huggingface", str(path)), attention


def _fixture(folder: Path) -> tuple[float, ...] | None:
    path = folder / FIXTURE_FILE
    if not path.is_file():
        return None
    logits = read_json(path).get("logits")
    if not isinstance(logits, list) or not all(isinstance(x, int | float) for x in logits):
        raise UserError(f"{path} holds no logits")
    return tuple(map(float, logits))


def _precision_notes(tensors: Mapping[str, np.ndarray], where: str) -> tuple[str, ...]:
    narrow = sorted(
        {str(t.dtype) for t in tensors.values() if t.dtype.name in ("float16", "bfloat16")}
    )
    if not narrow:
        return ()
    return (f"{where} is stored in {' and '.join(narrow)}; its weights are kept in float32",)
