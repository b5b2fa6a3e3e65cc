"""What people load frames with in PyTorch: a `DataLoader` over JPEG files, with Pillow.

The transforms are torchvision's, which itself is not used (its wheels do not go with every torch):
its operations on Pillow images, written from its documentation: `RandomResizedCrop`, flips and
`ColorJitter` in random order. Images stay uint8, as ours do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageEnhance
from torch.utils.data import DataLoader, Dataset

from endoclip_jax.data import augmentation
from endoclip_jax.data.transforms import decode_onto


class FrameFiles(Dataset):
    """JPEG files as augmented `[S, S, 3]` uint8 tensors.

    With a `canvas` (height, width) as this project's loader has them, so that only the loading
    differs: decoded into a corner of it, with the numbers of an augmentation.
    """

    def __init__(
        self, paths: Sequence[Path], size: int, canvas: tuple[int, int] | None, seed: int
    ) -> None:
        self._paths, self._size, self._canvas, self._seed = list(paths), size, canvas, seed

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, position: int) -> tuple[torch.Tensor, ...]:
        path = self._paths[position]
        rng = np.random.default_rng((self._seed, position))
        if self._canvas is not None:
            pixels = np.zeros((*self._canvas, 3), np.uint8)
            sides = decode_onto(pixels, path.read_bytes(), self._size)
            numbers = augmentation.draw_augmentation(*sides, rng.random(augmentation.DRAWS))
            return torch.from_numpy(pixels), torch.tensor(numbers)
        with Image.open(path) as opened:
            frame = opened.convert("RGB")
        return (torch.from_numpy(np.array(_augmented(frame, self._size, rng))),)


def loader(
    paths: Sequence[Path],
    *,
    size: int,
    batch: int,
    workers: int,
    canvas: tuple[int, int] | None,
    seed: int,
) -> DataLoader:
    """Shuffled, whole batches only; `workers` processes that live on between epochs."""
    return DataLoader(
        FrameFiles(paths, size, canvas, seed),
        batch_size=batch,
        shuffle=True,
        num_workers=workers,
        drop_last=True,
        persistent_workers=workers > 0,
    )


def _augmented(frame: Image.Image, size: int, rng: np.random.Generator) -> Image.Image:
    width, height = frame.size
    area = rng.uniform(*augmentation.CROP_AREA) * width * height
    aspect = math.exp(rng.uniform(-1, 1) * math.log(augmentation.CROP_ASPECT)) * width / height
    crop_width = min(width, round(math.sqrt(area * aspect)))
    crop_height = min(height, round(math.sqrt(area / aspect)))
    left = int(rng.integers(width - crop_width + 1))
    top = int(rng.integers(height - crop_height + 1))
    frame = frame.crop((left, top, left + crop_width, top + crop_height))
    frame = frame.resize((size, size), Image.Resampling.BICUBIC)
    for turn in (Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.FLIP_TOP_BOTTOM):
        if rng.random() < 0.5:
            frame = frame.transpose(turn)
    for operation in rng.permutation(4).tolist():
        frame = _jittered(frame, operation, rng)
    return frame


def _jittered(frame: Image.Image, operation: int, rng: np.random.Generator) -> Image.Image:
    if operation == 3:
        hue, saturation, value = frame.convert("HSV").split()
        shift = round(rng.uniform(-augmentation.MAX_HUE, augmentation.MAX_HUE) * 255)
        turned = (np.asarray(hue, np.int16) + shift).astype(np.uint8)
        return Image.merge("HSV", (Image.fromarray(turned), saturation, value)).convert("RGB")
    enhancers = (
        (ImageEnhance.Brightness, augmentation.BRIGHTNESS),
        (ImageEnhance.Contrast, augmentation.CONTRAST),
        (ImageEnhance.Color, augmentation.SATURATION),
    )
    enhancer, most = enhancers[operation]
    return enhancer(frame).enhance(rng.uniform(1 - most, 1 + most))
