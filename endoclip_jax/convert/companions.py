"""The files beside a foreign model's weights that say how it reads images and texts.

They are checked, not followed: this project has one preprocessing and one tokenizer, and a model
that was made for others is refused before it scores anything.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from endoclip_jax.data.tokenizer import CONTEXT_LENGTH, VOCABULARY_SIZE, load_tokenizer
from endoclip_jax.data.transforms import CLIP_MEAN, CLIP_STD
from endoclip_jax.errors import UserError

PREPROCESSOR_FILE = "preprocessor_config.json"
_BICUBIC = 3


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; UserError with the file's name for anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error})") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no JSON object")
    return content


def check_preprocessor(folder: Path) -> None:
    """Refuses `preprocessor_config.json` with another normalisation or resize than CLIP's."""
    path = folder / PREPROCESSOR_FILE
    if not path.is_file():
        return
    given = read_json(path)
    given = given.get("image_processor", given)
    for key, ours in (("image_mean", CLIP_MEAN), ("image_std", CLIP_STD)):
        theirs = given.get(key, ours)
        if np.shape(theirs) != (3,) or not np.allclose(theirs, ours, atol=1e-6):
            raise UserError(f"{path}: {key} is {theirs}, but CLIP's is {list(ours)}")
    if given.get("resample", _BICUBIC) != _BICUBIC:
        raise UserError(f"{path}: resample is {given['resample']}, but CLIP's is 3 (bicubic)")


def check_open_clip_preprocessing(config: Mapping[str, Any], where: str) -> None:
    """The same for open_clip's `preprocess_cfg`."""
    given = config.get("preprocess_cfg", {})
    for key, ours in (("mean", CLIP_MEAN), ("std", CLIP_STD)):
        if not np.allclose(given.get(key, ours), ours, atol=1e-6):
            raise UserError(
                f"{where}: preprocess_cfg.{key} is {given[key]}, but CLIP's is {list(ours)}"
            )
    if given.get("interpolation", "bicubic") != "bicubic":
        raise UserError(
            f"{where}: preprocess_cfg.interpolation is {given['interpolation']!r}, "
            "but CLIP's is 'bicubic'"
        )


def check_tokenizer(folder: Path, vocab_size: int, context_length: int) -> None:
    """Refuses a text tower for another vocabulary or a context shorter than our texts.

    `tokenizer.json`, or `vocab.json` and `merges.txt`, are compared token by token where they lie
    in the folder.
    """
    if vocab_size != VOCABULARY_SIZE:
        raise UserError(
            f"{folder}: the text tower has vocab_size {vocab_size}, CLIP's tokenizer "
            f"{VOCABULARY_SIZE}: it was trained with another tokenizer"
        )
    if context_length != CONTEXT_LENGTH:
        raise UserError(
            f"{folder}: the text tower reads {context_length} tokens, but texts are cut at "
            f"{CONTEXT_LENGTH} here"
        )
    tokenizer = load_tokenizer()
    ours = {symbol: number for number, symbol in enumerate(tokenizer.symbols)}
    for path, vocabulary, merges in _tokenizer_files(folder):
        if vocabulary is not None and vocabulary != ours:
            token = min((vocabulary.items() ^ ours.items()), default=("", 0))[0]
            raise UserError(f"{path} is not CLIP's vocabulary: it differs at token {token!r}")
        if merges is not None and merges != tokenizer.merges:
            raise UserError(f"{path} does not hold CLIP's merges: it is another tokenizer")


def _tokenizer_files(
    folder: Path,
) -> list[tuple[Path, dict[str, int] | None, list[tuple[str, str]] | None]]:
    found: list[tuple[Path, dict[str, int] | None, list[tuple[str, str]] | None]] = []
    whole = folder / "tokenizer.json"
    if whole.is_file():
        model = read_json(whole).get("model", {})
        pairs = [_pair(merge) for merge in model.get("merges", [])]
        found.append((whole, model.get("vocab", {}), pairs))
    vocabulary, merges = folder / "vocab.json", folder / "merges.txt"
    if vocabulary.is_file():
        found.append((vocabulary, read_json(vocabulary), None))
    if merges.is_file():
        lines = merges.read_text(encoding="utf-8").splitlines()
        pairs = [_pair(line) for line in lines if line and not line.startswith("#version")]
        found.append((merges, None, pairs))
    return found


def _pair(merge: str | list[str]) -> tuple[str, str]:
    first, second = merge.split(" ") if isinstance(merge, str) else merge
    return first, second
