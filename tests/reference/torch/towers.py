"""CLIP's towers as `transformers` builds them, and unit embeddings from them."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import CLIPConfig, CLIPModel


def build(
    *,
    image_size: int,
    patch_size: int,
    vision_width: int,
    vision_layers: int,
    vision_heads: int,
    vocab_size: int,
    context_length: int,
    text_width: int,
    text_layers: int,
    text_heads: int,
    embed_dim: int,
    activation: str = "quick_gelu",
    layer_norm_eps: float = 1e-5,
) -> CLIPModel:
    """A `CLIPModel` of these sizes with random weights; the last token of the vocabulary is EOT."""
    common = {
        "hidden_act": activation,
        "layer_norm_eps": layer_norm_eps,
        "projection_dim": embed_dim,
        "attention_dropout": 0.0,
    }
    config = CLIPConfig(
        attn_implementation="eager",
        vision_config={
            **common,
            "image_size": image_size,
            "patch_size": patch_size,
            "hidden_size": vision_width,
            "intermediate_size": 4 * vision_width,
            "num_hidden_layers": vision_layers,
            "num_attention_heads": vision_heads,
        },
        text_config={
            **common,
            "vocab_size": vocab_size,
            "max_position_embeddings": context_length,
            "hidden_size": text_width,
            "intermediate_size": 4 * text_width,
            "num_hidden_layers": text_layers,
            "num_attention_heads": text_heads,
            "bos_token_id": vocab_size - 2,
            "eos_token_id": vocab_size - 1,
            "pad_token_id": 0,
        },
        projection_dim=embed_dim,
    )
    return CLIPModel(config)


def unit(x: Tensor) -> Tensor:
    """Rows of length one: [..., D] -> [..., D]."""
    return x / x.norm(dim=-1, keepdim=True)


def encode_images(model: CLIPModel, pixels: Tensor) -> Tensor:
    """`v = E_v(image)`: normalised pixels [..., S, S, 3] -> unit vectors [..., D]."""
    flat = pixels.reshape(-1, *pixels.shape[-3:]).permute(0, 3, 1, 2)
    features = model.visual_projection(model.vision_model(pixel_values=flat).pooler_output)
    return unit(features).reshape(*pixels.shape[:-3], -1)


def encode_texts(model: CLIPModel, ids: Tensor) -> Tensor:
    """`t = E_t(text)`: token ids [..., n], padded after EOT -> unit vectors [..., D]."""
    flat = ids.reshape(-1, ids.shape[-1])
    features = model.text_projection(model.text_model(input_ids=flat).pooler_output)
    return unit(features).reshape(*ids.shape[:-1], -1)


def similarity_scale(model: CLIPModel) -> Tensor:
    """The inverse temperature `exp(logit_scale)`, not clamped in the forward pass."""
    return torch.exp(model.logit_scale)
