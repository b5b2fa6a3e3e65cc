"""Several random crops of one frame, as self-supervised methods learn from them.

The recipes are those published with each method, colour changes included: baselines are not
improved, nor impaired, by what this project knows of polyps. Blur radii are published for 224
pixels and shrink with the crop.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageEnhance, ImageFilter

from endoclip_jax.data.source import named_generator
from endoclip_jax.data.transforms import decode
from endoclip_jax.data.views import Batch, FrameView, empty_frames

_ASPECT = 4 / 3
_BLUR_SIDE = 224  # pixels, for which radii are published


@dataclass(frozen=True)
class Recipe:
    """How one crop is drawn; `area` is its share of the frame, the others are strengths and odds.

    Attributes:
      jitter: largest changes of brightness, contrast, saturation (factors) and hue (turns), made
        in random order.
      blur, radii: odds of a Gaussian blur, and between which standard deviations, at 224 pixels.
    """

    area: tuple[float, float]
    jitter: tuple[float, float, float, float]
    blur: float
    radii: tuple[float, float]
    solarise: float = 0.0
    jitter_odds: float = 0.8
    grey: float = 0.2


def augmented(
    pixels: UInt8[np.ndarray, "h w 3"], size: int, recipe: Recipe, rng: np.random.Generator
) -> UInt8[np.ndarray, "size size 3"]:
    """A crop resized to a square, mirrored left to right half of the time, then recoloured."""
    frame = Image.fromarray(pixels)
    box = crop_box(frame.width, frame.height, recipe.area, rng)
    image = frame.resize((size, size), Image.Resampling.BICUBIC, box=box)
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if rng.random() < recipe.jitter_odds:
        image = _jittered(image, recipe.jitter, rng)
    if rng.random() < recipe.grey:
        image = image.convert("L").convert("RGB")
    if rng.random() < recipe.blur:
        radius = float(rng.uniform(*recipe.radii)) * size / _BLUR_SIDE
        image = image.filter(ImageFilter.GaussianBlur(radius))
    result = np.asarray(image)
    if rng.random() < recipe.solarise:
        result = np.where(result < 128, result, 255 - result)
    return result


def crop_box(
    width: int, height: int, area: tuple[float, float], rng: np.random.Generator
) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) of a crop inside the frame: its area a share drawn evenly between
    two, its aspect between 3/4 and 4/3 (evenly in the logarithm), sides cut where they do not fit.
    """
    pixels = float(rng.uniform(*area)) * width * height
    aspect = math.exp(float(rng.uniform(-1, 1)) * math.log(_ASPECT))
    wide, high = min(width, math.sqrt(pixels * aspect)), min(height, math.sqrt(pixels / aspect))
    left, top = (width - wide) * float(rng.random()), (height - high) * float(rng.random())
    return left, top, min(left + wide, float(width)), min(top + high, float(height))


def _jittered(
    image: Image.Image, strengths: tuple[float, float, float, float], rng: np.random.Generator
) -> Image.Image:
    changes = rng.uniform(-1, 1, 4) * strengths
    enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for change in rng.permutation(4).tolist():
        if change == 3:
            image = _turned_hue(image, float(changes[3]))
        else:
            image = enhancers[change](image).enhance(1 + float(changes[change]))
    return image


def _turned_hue(image: Image.Image, turns: float) -> Image.Image:
    hsv = np.array(image.convert("HSV"))
    hsv[..., 0] += np.uint8(round(turns * 255) % 256)  # hue is a circle of 256
    return Image.fromarray(hsv, "HSV").convert("RGB")


@dataclass(frozen=True)
class Crops:
    """How often each frame is cropped: `global_views` at the model's size, one for each recipe, and
    `count` of `local_size` by the `local` one.
    """

    global_views: tuple[Recipe, ...]
    local: Recipe | None = None
    count: int = 0
    local_size: int = 0

    def drawn(
        self, pixels: np.ndarray, size: int, rng: np.random.Generator
    ) -> Iterator[tuple[str, int, np.ndarray]]:
        """(array's name, place in it, crop) of every crop of a frame."""
        for place, recipe in enumerate(self.global_views):
            yield "image", place, augmented(pixels, size, recipe, rng)
        if self.local is not None:
            for place in range(self.count):
                yield "local", place, augmented(pixels, self.local_size, self.local, rng)


@dataclass(frozen=True)
class CropsView(FrameView):
    """One frame of a patient as `image` u8[b,v,S,S,3] and, with local crops, `local` u8[b,n,s,s,3].

    Crops are drawn on held-out patients as well, but there once and for good. `chance` f32[b,4]
    are numbers between 0 and 1, for what a stage draws for a row.
    """

    crops: Crops

    def empty(self, rows: int) -> Batch:
        size, views = self.image_size, len(self.crops.global_views)
        batch = empty_frames(rows, size, size) | {"record": np.full(rows, -1, np.int64)}
        batch["image"] = np.zeros((rows, views, size, size, 3), np.uint8)
        if self.crops.local is not None:
            side = self.crops.local_size
            batch["local"] = np.zeros((rows, self.crops.count, side, side, 3), np.uint8)
        batch["chance"] = np.zeros((rows, 4), np.float32)
        return batch

    def fill(self, batch: Batch, row: int, epoch: int, unit: int) -> None:
        patient, position, rng = self.draw_record(epoch, unit)
        batch["record"][row] = self.records[position]
        for frame in self.in_turn(position, rng):
            pixels = self.reader.decoded(frame, decode)
            if pixels is not None:
                break
        else:
            return
        ordinal = self.reader.ordinal(frame)
        rng = named_generator(self.seed, self.stream, epoch, patient, ordinal, "crops")
        for name, place, crop in self.crops.drawn(pixels, self.image_size, rng):
            batch[name][row, place] = crop
        batch["chance"][row] = rng.random(4)
        batch["frame"][row], batch["valid"][row] = frame, True
