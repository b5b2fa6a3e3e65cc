"""ViT-B/32, B/16 and L/14 from PyTorch and back, in full size with random weights.

    python tests/scripts/full_size_weights.py [--sizes=b32,b16,l14]

Each model is saved by transformers, read, scored on 8 images and 8 texts, exported and loaded
again. Prints the largest difference of the logits and whether every exported bit is the same;
exit code 1 when logits differ by more than 1e-4 or a bit does. L/14 needs 8 GB of memory.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import torch
from transformers import CLIPConfig, CLIPModel
from transformers.utils import logging

from endoclip_jax.convert.export import write_huggingface
from endoclip_jax.convert.source import read_weights
from endoclip_jax.models.clip import CLIP

LIMIT = 1e-4
SIZES = {
    "b32": CLIPConfig(),
    "b16": CLIPConfig(vision_config={"patch_size": 16}),
    "l14": CLIPConfig(
        vision_config={
            "patch_size": 14,
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
        },
        text_config={"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12},
        projection_dim=768,
    ),
}


def there_and_back(config: CLIPConfig, folder: Path) -> tuple[int, float, bool]:
    """Parameters, largest difference of the logits, and whether the export has the same bits."""
    torch.manual_seed(0)
    model = CLIPModel(config).eval()
    model.save_pretrained(folder / "given")
    weights = read_weights(folder / "given")
    images = np.random.default_rng(0).normal(size=(8, 224, 224, 3)).astype(np.float32)
    ids = np.zeros((8, 16), np.int32)
    for length, row in enumerate(ids, start=3):
        row[:length] = [49406, *range(320, 318 + length), 49407]
    with torch.no_grad():
        pixels = torch.tensor(images.transpose(0, 3, 1, 2).copy())
        expected = model(torch.tensor(ids), pixels).logits_per_image.numpy()
    v, t, scale = jax.jit(CLIP(weights.config).apply)({"params": weights.params}, images, ids)
    apart = float(np.max(np.abs(np.asarray(jnp.exp(scale) * v @ t.T) - expected)))
    write_huggingface(weights, folder / "exported")
    given, back = model.state_dict(), CLIPModel.from_pretrained(folder / "exported").state_dict()
    same = given.keys() == back.keys() and all(torch.equal(given[n], back[n]) for n in given)
    return sum(p.numel() for p in model.parameters()), apart, same


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="b32,b16,l14")
    logging.disable_progress_bar()
    good = True
    for name in parser.parse_args().sizes.split(","):
        with tempfile.TemporaryDirectory() as folder:
            count, apart, same = there_and_back(SIZES[name], Path(folder))
        print(f"{name}: {count:,} parameters, logits within {apart:.1e}, bits the same: {same}")
        good &= apart <= LIMIT and same
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
