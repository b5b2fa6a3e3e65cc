"""Models of PyTorch to compare with: random weights, small sizes."""

from __future__ import annotations

import numpy as np
import torch
from transformers import CLIPConfig, CLIPModel
from transformers.utils import logging

logging.disable_progress_bar()


def small_clip(activation: str = "quick_gelu", *, vocab_size: int = 49408) -> CLIPModel:
    """A `CLIPModel` with every parameter away from its initial value, biases and norms too."""
    shared = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_act": activation}
    config = CLIPConfig(
        vision_config={
            **shared, "hidden_size": 24, "intermediate_size": 96, "image_size": 24, "patch_size": 8
        },
        text_config={
            **shared, "hidden_size": 16, "intermediate_size": 64, "vocab_size": vocab_size,
            "bos_token_id": vocab_size - 2, "eos_token_id": vocab_size - 1,
            "pad_token_id": vocab_size - 1,
        },
        projection_dim=12,
    )  # fmt: skip
    model = CLIPModel(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name != "logit_scale":
                parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model


def numpy_tensors(model: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}


def same_state(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    """Whether two models hold the same bits under the same names."""
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )
