"""From a stored JPEG to the uint8 square a model reads: one decoder, one resize, one augmentation.

Frames were cropped to the endoscope's field of view when the shards were made, so nothing is
cropped away here in evaluation, not even by a centre crop, which would cut the field's corners.
Normalisation is left to the device (`normalize`): a batch travels as uint8, a quarter of float32.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
import simplejpeg
from jaxtyping import Array, Float, UInt8
from PIL import Image

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

PREPROCESSING = {
    "crop": "field of view, at preparation",
    "resize": "Pillow bicubic, the whole frame to a square",
    "mean": list(CLIP_MEAN),
    "std": list(CLIP_STD),
}
"""What becomes of a frame before the model sees it; travels with every checkpoint."""

CROP_AREA = (0.8, 1.0)
CROP_ASPECT = 4 / 3
BRIGHTNESS = CONTRAST = SATURATION = 0.12
REDUCED_SIDE = 0.75
MAX_HUE = 0.02
"""Largest change of HSV hue, in turns. Colour is an attribute: a red lesion has to stay red."""

# Turning RGB about the grey axis by an angle turns the hexagonal HSV hue by at most 2π/(3√3) of it.
_MAX_TURN = MAX_HUE / (2 * math.pi / (3 * math.sqrt(3)))


class UndecodableFrame(ValueError):
    """The bytes are no whole JPEG."""


def decode(jpeg: bytes, min_side: int = 0) -> UInt8[np.ndarray, "h w 3"]:
    """Decodes to RGB; with `min_side`, at 1/2, 1/4 or 1/8 of the size if both sides stay that long.

    Reduction happens in the DCT domain, which spares decoding and resizing pixels that are averaged
    away. Other fractions (libjpeg's 5/8, 7/8) are slower than the whole and never used. Raises
    UndecodableFrame for bytes that are not a whole JPEG.
    """
    try:
        if not min_side:
            return simplejpeg.decode_jpeg(jpeg)
        height, width = simplejpeg.decode_jpeg_header(jpeg)[:2]
        factor = next((f for f in (8, 4, 2) if min(height, width) >= f * min_side), 1)
        return simplejpeg.decode_jpeg(
            jpeg, min_height=math.ceil(height / factor), min_width=math.ceil(width / factor)
        )
    except ValueError as error:
        raise UndecodableFrame(str(error)) from error


def resize(pixels: UInt8[np.ndarray, "h w 3"], size: int) -> UInt8[np.ndarray, "size size 3"]:
    """THE resize: Pillow's antialiased bicubic (a = -0.5) of the whole frame to a square."""
    return np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC))


def eval_image(jpeg: bytes, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """The frame as scoring and evaluation see it: full decode and `resize`, nothing random."""
    return resize(decode(jpeg), size)


def train_image(
    jpeg: bytes, size: int, rng: np.random.Generator
) -> UInt8[np.ndarray, "size size 3"]:
    """The frame as training sees it: random resized crop, flips and a light colour jitter.

    The crop keeps 0.8 to 1 of the area; both mirrorings (a colon has no upright) have probability
    one half; brightness, contrast and saturation vary by ±12 %, hue by at most `MAX_HUE`. A frame
    whose halved sides reach 0.75 of `size` is decoded reduced (see `decode`), twice as fast; the
    mean difference from a full decode is 2 grey levels at 128 → 64 px and 0.7 at 512 → 224, that
    between bicubic and bilinear 1.1 and 0.7. The result may be a mirrored view, not contiguous.
    """
    draws = rng.random(8)
    pixels = decode(jpeg, min_side=math.ceil(REDUCED_SIDE * size))
    height, width = pixels.shape[:2]
    box = _crop_box(height, width, draws[:4])
    frame = Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC, box=box)
    # Every 31st byte gives the mean grey to within a level, and visits all three channels.
    grey = float(pixels.reshape(-1)[::31].mean())
    image = np.asarray(frame.convert("RGB", _jitter_matrix(grey, draws[4:])))
    mirror_rows, mirror_columns = rng.random(2) < 0.5
    return image[:: -1 if mirror_rows else 1, :: -1 if mirror_columns else 1]


def normalize(images: UInt8[Array, "*batch size size 3"]) -> Float[Array, "*batch size size 3"]:
    """uint8 RGB to the float32 CLIP expects: channel means subtracted, over deviations."""
    mean = jnp.asarray(CLIP_MEAN, jnp.float32) * 255
    std = jnp.asarray(CLIP_STD, jnp.float32) * 255
    return (images.astype(jnp.float32) - mean) / std


def _crop_box(height: int, width: int, draws: np.ndarray) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) of a crop with a drawn area, aspect and place, within the frame.

    The aspect is relative to the frame's own, and bounded so that the area drawn always fits.
    """
    area = CROP_AREA[0] + (CROP_AREA[1] - CROP_AREA[0]) * float(draws[0])
    widest = min(CROP_ASPECT, 1 / area)
    aspect = widest ** (2 * float(draws[1]) - 1)
    crop_width, crop_height = width * math.sqrt(area * aspect), height * math.sqrt(area / aspect)
    left, top = (width - crop_width) * float(draws[2]), (height - crop_height) * float(draws[3])
    return left, top, min(left + crop_width, width), min(top + crop_height, height)


def _jitter_matrix(grey: float, draws: np.ndarray) -> tuple[float, ...]:
    """The whole jitter as one affine map of RGB, in the row-major 3×4 form Pillow takes.

    Brightness and contrast (about the frame's mean grey) are a gain and an offset; saturation
    scales, and hue turns, what is orthogonal to the grey axis. The matrix is therefore circulant.
    """
    low_high = 2 * draws - 1
    brightness = 1 + BRIGHTNESS * float(low_high[0])
    contrast = 1 + CONTRAST * float(low_high[1])
    saturation = 1 + SATURATION * float(low_high[2])
    angle = 2 * math.pi * _MAX_TURN * float(low_high[3])
    gain = brightness * contrast
    along = saturation * math.cos(angle)
    across = saturation * math.sin(angle) / math.sqrt(3)
    same = gain * (1 + 2 * along) / 3
    next_, previous = gain * ((1 - along) / 3 - across), gain * ((1 - along) / 3 + across)
    # Pillow cuts fractions off: the half turns that into rounding.
    offset = (1 - contrast) * brightness * grey + 0.5
    return (
        *(same, next_, previous, offset),
        *(previous, same, next_, offset),
        *(next_, previous, same, offset),
    )
