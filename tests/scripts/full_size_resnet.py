"""ResNet-50 in full size against transformers', random weights, both forms of a block.

    python tests/scripts/full_size_resnet.py

Features of 4 images of 224 pixels; exit code 1 when they differ by more than 1e-4 of the largest.
"""

from __future__ import annotations

import sys
import tempfile

import jax
import numpy as np
import torch
from transformers import ResNetConfig, ResNetModel
from transformers.utils import logging

from endoclip_jax.convert.resnet import read_resnet

LIMIT = 1e-4


def apart(stride_in_first: bool) -> tuple[int, float]:
    """Parameters, and the largest difference of the features over the largest feature."""
    torch.manual_seed(0)
    model = ResNetModel(ResNetConfig(downsample_in_bottleneck=stride_in_first)).eval()
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            torch.nn.init.normal_(buffer, std=0.2)
        elif name.endswith("running_var"):
            torch.nn.init.uniform_(buffer, 0.5, 2)
    images = np.random.default_rng(0).normal(size=(4, 224, 224, 3)).astype(np.float32)
    with torch.no_grad():
        given = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
        expected = model(given).pooler_output[:, :, 0, 0].numpy()
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        loaded = read_resnet(folder)
    features = np.asarray(jax.jit(loaded.model.apply)(loaded.variables, images))
    count = sum(parameter.numel() for parameter in model.parameters())
    return count, float(np.abs(features - expected).max() / np.abs(expected).max())


def main() -> int:
    logging.disable_progress_bar()
    good = True
    for stride_in_first in (False, True):
        count, difference = apart(stride_in_first)
        form = "first 1x1" if stride_in_first else "3x3"
        print(f"stride in the {form}: {count:,} parameters, features within {difference:.1e}")
        good &= difference <= LIMIT
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
