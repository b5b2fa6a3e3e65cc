"""Our model's configuration from, and as, that of Hugging Face, open_clip and OpenAI.

Whatever changes the function and cannot be said by `CLIPConfig` is an error that names the key.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from endoclip_jax.data.tokenizer import START
from endoclip_jax.data.transforms import CLIP_MEAN, CLIP_STD
from endoclip_jax.errors import UserError
from endoclip_jax.models.clip import CLIPConfig, TextConfig, VisionConfig
from endoclip_jax.models.layers import ACTIVATIONS

_HEAD_WIDTH = 64  # of every model that OpenAI released, whose files do not tell
_LEGACY_EOS = 2  # written by early transformers, where it stood for the highest id
_EPS = 1e-5  # PyTorch's, which open_clip writes only where it is another
OPENAI_SCALARS = ("input_resolution", "context_length", "vocab_size")

_HF_VISION: dict[
    str, Any
] = {  # transformers' own defaults: configurations leave out what equals them
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 32,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}
_HF_TEXT: dict[str, Any] = {
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "vocab_size": 49408,
    "max_position_embeddings": 77,
    "eos_token_id": 49407,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}
_OPEN_CLIP_VISION: dict[str, Any] = {
    "image_size": 224,
    "patch_size": 16,
    "width": 768,
    "layers": 12,
    "head_width": 64,
    "mlp_ratio": 4.0,
}
_OPEN_CLIP_TEXT: dict[str, Any] = {
    "context_length": 77,
    "vocab_size": 49408,
    "width": 512,
    "heads": 8,
    "layers": 12,
    "mlp_ratio": 4.0,
}


def from_huggingface(config: Mapping[str, Any], where: str) -> CLIPConfig:
    """The model of a Hugging Face `config.json`.

    Raises:
      UserError: for another kind of model, or a key whose value ours cannot have.
    """
    kind = config.get("model_type")
    if kind != "clip":
        raise UserError(f"{where} describes a {kind!r} model: only model_type 'clip' is read")
    vision = _HF_VISION | _section(config, "vision_config", where)
    text = _HF_TEXT | _section(config, "text_config", where)
    for name, tower in (("vision_config", vision), ("text_config", text)):
        _require(where, f"{name}.hidden_act", tower["hidden_act"], ACTIVATIONS)
        _require(
            where, f"{name}.intermediate_size", tower["intermediate_size"],
            [4 * tower["hidden_size"]],
        )  # fmt: skip
    for key in ("hidden_act", "layer_norm_eps"):
        _require(where, f"text_config.{key}", text[key], [vision[key]])
    _require(where, "vision_config.num_channels", vision["num_channels"], [3])
    _require(
        where, "text_config.eos_token_id", text["eos_token_id"],
        [text["vocab_size"] - 1, _LEGACY_EOS],
    )  # fmt: skip
    return CLIPConfig(
        vision=VisionConfig(
            image_size=_square(vision["image_size"], where, "vision_config.image_size"),
            patch_size=_square(vision["patch_size"], where, "vision_config.patch_size"),
            width=vision["hidden_size"],
            layers=vision["num_hidden_layers"],
            heads=vision["num_attention_heads"],
        ),
        text=TextConfig(
            width=text["hidden_size"],
            layers=text["num_hidden_layers"],
            heads=text["num_attention_heads"],
            vocab_size=text["vocab_size"],
            context_length=text["max_position_embeddings"],
        ),
        embed_dim=config.get("projection_dim", 512),
        activation=vision["hidden_act"],
        layer_norm_eps=vision["layer_norm_eps"],
    )


def to_huggingface(config: CLIPConfig, logit_scale: float) -> dict[str, Any]:
    """The `config.json` from which `CLIPModel.from_pretrained` builds the same function."""
    shared = {
        "hidden_act": config.activation,
        "layer_norm_eps": config.layer_norm_eps,
        "projection_dim": config.embed_dim,
        "attention_dropout": 0.0,
    }
    end = config.text.vocab_size - 1
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "dtype": "float32",
        "projection_dim": config.embed_dim,
        "logit_scale_init_value": logit_scale,
        "vision_config": shared
        | {
            "model_type": "clip_vision_model",
            "hidden_size": config.vision.width,
            "intermediate_size": 4 * config.vision.width,
            "num_hidden_layers": config.vision.layers,
            "num_attention_heads": config.vision.heads,
            "num_channels": 3,
            "image_size": config.vision.image_size,
            "patch_size": config.vision.patch_size,
        },
        "text_config": shared
        | {
            "model_type": "clip_text_model",
            "hidden_size": config.text.width,
            "intermediate_size": 4 * config.text.width,
            "num_hidden_layers": config.text.layers,
            "num_attention_heads": config.text.heads,
            "vocab_size": config.text.vocab_size,
            "max_position_embeddings": config.text.context_length,
            "bos_token_id": min(START, end - 1),
            "eos_token_id": end,
            "pad_token_id": end,
        },
    }


def from_open_clip(config: Mapping[str, Any], where: str) -> CLIPConfig:
    """The model of an `open_clip_config.json`, or of one of open_clip's own model files.

    Raises:
      UserError: for a tower or an option that CLIP's original architecture does not have.
    """
    model = config.get("model_cfg", config)
    _known_keys(model, ("embed_dim", "quick_gelu", "vision_cfg", "text_cfg"), "", where)
    vision, vision_eps = _open_clip_tower(model, "vision_cfg", _OPEN_CLIP_VISION, where)
    text, text_eps = _open_clip_tower(model, "text_cfg", _OPEN_CLIP_TEXT, where)
    _require(where, "text_cfg.norm_kwargs.eps", text_eps, [vision_eps])
    if not isinstance(vision["layers"], int):
        raise UserError(
            f"{where}: vision_cfg.layers is {vision['layers']}, a ResNet: only ViTs fit"
        )
    return CLIPConfig(
        vision=VisionConfig(
            image_size=_square(vision["image_size"], where, "vision_cfg.image_size"),
            patch_size=_square(vision["patch_size"], where, "vision_cfg.patch_size"),
            width=vision["width"],
            layers=vision["layers"],
            heads=vision["width"] // vision["head_width"],
        ),
        text=TextConfig(
            width=text["width"],
            layers=text["layers"],
            heads=text["heads"],
            vocab_size=text["vocab_size"],
            context_length=text["context_length"],
        ),
        embed_dim=model["embed_dim"],
        activation="quick_gelu" if model.get("quick_gelu", False) else "gelu",
        layer_norm_eps=vision_eps,
    )


def to_open_clip(config: CLIPConfig) -> dict[str, Any]:
    """The `open_clip_config.json` of the same function, with our preprocessing."""
    norm = {} if config.layer_norm_eps == _EPS else {"norm_kwargs": {"eps": config.layer_norm_eps}}
    return {
        "model_cfg": {
            "embed_dim": config.embed_dim,
            "quick_gelu": config.activation == "quick_gelu",
            "vision_cfg": {
                "image_size": config.vision.image_size,
                "patch_size": config.vision.patch_size,
                "width": config.vision.width,
                "layers": config.vision.layers,
                "head_width": config.vision.width // config.vision.heads,
                **norm,
            },
            "text_cfg": {
                "context_length": config.text.context_length,
                "vocab_size": config.text.vocab_size,
                "width": config.text.width,
                "heads": config.text.heads,
                "layers": config.text.layers,
                **norm,
            },
        },
        "preprocess_cfg": {
            "mean": list(CLIP_MEAN),
            "std": list(CLIP_STD),
            "interpolation": "bicubic",
            "resize_mode": "squash",
        },
    }


def from_openai(tensors: Mapping[str, np.ndarray], activation: str, where: str) -> CLIPConfig:
    """The model of a file that holds tensors under OpenAI's names and nothing else.

    Sizes are the tensors' own; heads are 64 wide, as in every model OpenAI released.
    """
    try:
        width, _, patch, _ = tensors["visual.conv1.weight"].shape
        positions = tensors["visual.positional_embedding"].shape[0]
        vocab, text_width = tensors["token_embedding.weight"].shape
        context = tensors["positional_embedding"].shape[0]
        embed_dim = tensors["text_projection"].shape[1]
    except (KeyError, ValueError, IndexError) as error:
        raise UserError(
            f"{where} has no usable tensor {error}: it is no CLIP with a vision transformer"
        ) from None
    return CLIPConfig(
        vision=VisionConfig(
            image_size=patch * round((positions - 1) ** 0.5),
            patch_size=patch,
            width=width,
            layers=_depth(tensors, r"visual\.transformer\.resblocks\.(\d+)\."),
            heads=max(1, width // _HEAD_WIDTH),
        ),
        text=TextConfig(
            width=text_width,
            layers=_depth(tensors, r"transformer\.resblocks\.(\d+)\."),
            heads=max(1, text_width // _HEAD_WIDTH),
            vocab_size=vocab,
            context_length=context,
        ),
        embed_dim=embed_dim,
        activation=activation,
    )


def _depth(names: Iterable[str], pattern: str) -> int:
    found = [int(match[1]) for name in names if (match := re.match(pattern, name))]
    return 1 + max(found, default=-1)


def _section(config: Mapping[str, Any], name: str, where: str) -> dict[str, Any]:
    """A tower's section; early transformers wrote what counts under `<name>_dict`."""
    section = dict(config.get(name) or {}) | dict(config.get(f"{name}_dict") or {})
    if not section:
        raise UserError(f"{where} has no {name}: it is not the configuration of a whole CLIP")
    return section


def _open_clip_tower(
    model: Mapping[str, Any], name: str, defaults: Mapping[str, Any], where: str
) -> tuple[dict[str, Any], float]:
    if name not in model:
        raise UserError(f"{where} has no {name}: it is not open_clip's configuration of a CLIP")
    section = dict(model[name])
    eps = section.pop("norm_kwargs", {}).get("eps", _EPS)
    _known_keys(section, defaults, f"{name}.", where)
    tower = dict(defaults) | section
    _require(where, f"{name}.mlp_ratio", tower["mlp_ratio"], [4.0])
    return tower, eps


def _known_keys(section: Mapping[str, Any], known: Iterable[str], prefix: str, where: str) -> None:
    unknown = sorted(set(section) - set(known))
    if unknown:
        raise UserError(
            f"{where}: {prefix}{unknown[0]} is an option that the original CLIP does not have"
        )


def _require(where: str, key: str, value: Any, allowed: Iterable[Any]) -> None:
    allowed = list(allowed)
    if value not in allowed:
        raise UserError(
            f"{where}: {key} is {value!r}, and this model can have "
            f"{' or '.join(map(repr, allowed))}"
        )


def _square(size: Any, where: str, key: str) -> int:
    sides = {size} if isinstance(size, int) else set(size)
    if len(sides) != 1:
        raise UserError(f"{where}: {key} is {size}, and only squares are read")
    return int(sides.pop())
