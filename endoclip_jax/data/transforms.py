"""From a stored JPEG to the uint8 square a model reads: one decoder, one resize.

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

REDUCED_SIDE = 0.75
"""Of the model's side: training decodes a frame reduced while its sides stay that long."""


class UndecodableFrame(ValueError):
    """The bytes are no whole JPEG."""


def decode(jpeg: bytes) -> UInt8[np.ndarray, "h w 3"]:
    """The whole frame in RGB. Raises UndecodableFrame for bytes that are not a whole JPEG."""
    try:
        return simplejpeg.decode_jpeg(jpeg)
    except ValueError as error:
        raise UndecodableFrame(str(error)) from error


def reduced_sides(height: int, width: int, size: int) -> tuple[int, int]:
    """Pixels of a frame as training decodes it for a model of side `size`.

    At 1/8, 1/4 or 1/2 of the size if both sides stay at least `REDUCED_SIDE * size` long. Other
    fractions (libjpeg's 5/8, 7/8) are slower than the whole and never used.
    """
    most = min(height, width) / math.ceil(REDUCED_SIDE * size)
    factor = next((factor for factor in (8, 4, 2) if most >= factor), 1)
    return -(-height // factor), -(-width // factor)


def decode_onto(canvas: UInt8[np.ndarray, "h w 3"], jpeg: bytes, size: int) -> tuple[int, int]:
    """Decodes a frame into the top left of a canvas, as training sees it; (height, width) there.

    Reduction (`reduced_sides`) happens in the DCT domain, which spares decoding pixels that are
    averaged away, and colours are upsampled the quick way. The mean difference from a full decode,
    both resized, is 2.1 grey levels at 128 → 64 px and 0.9 at 512 → 224; at 256 → 224, of the
    colours' part alone, 0.4. That between bicubic and bilinear is 1.2 and 0.6.

    Raises:
      UndecodableFrame: for bytes that are not a whole JPEG, or do not fit; the canvas is black.
    """
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(jpeg)
        height, width = reduced_sides(height, width, size)
        if height > canvas.shape[0] or width > canvas.shape[1]:
            raise UndecodableFrame(f"{height} x {width} pixels are more than the index says")
        fits = width == canvas.shape[1] and canvas.flags.c_contiguous
        pixels = simplejpeg.decode_jpeg(
            jpeg, min_height=height, min_width=width, fastupsample=True,
            buffer=canvas[:height] if fits else None,
        )  # fmt: skip
    except ValueError as error:
        canvas[:] = 0
        raise UndecodableFrame(str(error)) from error
    if not fits:
        canvas[:height, :width] = pixels
    return height, width


def resize(pixels: UInt8[np.ndarray, "h w 3"], size: int) -> UInt8[np.ndarray, "size size 3"]:
    """THE resize: Pillow's antialiased bicubic (a = -0.5) of the whole frame to a square."""
    return np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC))


def eval_image(jpeg: bytes, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """The frame as scoring and evaluation see it: full decode and `resize`, nothing random."""
    return resize(decode(jpeg), size)


def normalize(images: UInt8[Array, "*batch size size 3"]) -> Float[Array, "*batch size size 3"]:
    """uint8 RGB to the float32 CLIP expects: channel means subtracted, over deviations."""
    mean = jnp.asarray(CLIP_MEAN, jnp.float32) * 255
    std = jnp.asarray(CLIP_STD, jnp.float32) * 255
    return (images.astype(jnp.float32) - mean) / std
