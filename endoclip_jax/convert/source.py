"""Weights by one name: a checkpoint of ours, another project's folder or file, or a hub name."""

from __future__ import annotations

import re
from pathlib import Path

from endoclip_jax.convert.foreign import HF_WEIGHTS, foreign_config, is_foreign, read_foreign
from endoclip_jax.convert.weights import Weights
from endoclip_jax.data.tokenizer import load_tokenizer
from endoclip_jax.data.transforms import PREPROCESSING
from endoclip_jax.errors import UserError
from endoclip_jax.models.clip import CLIPConfig
from endoclip_jax.training import checkpoints

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_HUB_FILES = [
    "config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
]


def read_weights(source: str | Path, activation: str | None = None) -> Weights:
    """The weights that `source` names.

    Args:
      source: a stage's folder or one of its steps, a Hugging Face or open_clip folder, a file of
        tensors, or a hub name such as `openai/clip-vit-base-patch32`.
      activation: as in `read_foreign`.

    Raises:
      UserError: for nothing there, or anything that does not fit; the sentence names file and key.
    """
    path = _located(source)
    return read_foreign(path, activation) if is_foreign(path) else _read_checkpoint(path)


def model_config(source: str | Path) -> CLIPConfig:
    """The configuration alone of what `read_weights` would read."""
    path = _located(source)
    if is_foreign(path):
        return foreign_config(path)
    folder, step = checkpoints.resolve_checkpoint(path)
    return CLIPConfig.from_dict(checkpoints.read_meta(folder, step)["model"])


def _located(source: str | Path) -> Path:
    path = Path(source).expanduser()
    if path.exists():
        return path.absolute()
    if _HUB_NAME.fullmatch(str(source)):
        return _from_hub(str(source))
    raise UserError(f"{source} is not there: give a checkpoint, a model's folder or a hub name")


def _from_hub(name: str) -> Path:
    """The hub's files of that name, downloaded or from its cache."""
    from huggingface_hub import errors, snapshot_download

    try:
        folder = Path(snapshot_download(name, allow_patterns=[*_HUB_FILES, HF_WEIGHTS[0]]))
        if not (folder / HF_WEIGHTS[0]).is_file():  # older uploads have the pickle alone
            folder = Path(snapshot_download(name, allow_patterns=[*_HUB_FILES, HF_WEIGHTS[1]]))
    except (errors.HfHubHTTPError, errors.HFValidationError, OSError) as error:
        raise UserError(
            f"{name} is no folder here and cannot be fetched from the hub "
            f"({type(error).__name__}): check the name and the network, or download it elsewhere "
            "and give its folder"
        ) from None
    return folder


def _read_checkpoint(path: Path) -> Weights:
    folder, step = checkpoints.resolve_checkpoint(path)
    params, meta = checkpoints.load_params(folder, step)
    if meta["tokenizer"] != load_tokenizer().sha256:
        raise UserError(f"{path} was trained with another tokenizer than this version's")
    if meta["preprocessing"] != PREPROCESSING:
        key = next(k for k in PREPROCESSING if meta["preprocessing"].get(k) != PREPROCESSING[k])
        raise UserError(
            f"{path} was trained with another preprocessing: {key} was "
            f"{meta['preprocessing'].get(key)!r} and is {PREPROCESSING[key]!r} in this version"
        )
    cross = params.get("cross") or None
    settings = meta["config"]
    fixture = meta.get("fixture")
    return Weights(
        config=CLIPConfig.from_dict(meta["model"]),
        params=params["clip"],
        origin=str(path),
        cross=cross,
        attention={key: settings[key] for key in ("attention", "qk_norm", "residual")}
        if cross
        else {},
        fixture=None if fixture is None else tuple(fixture),
    )
