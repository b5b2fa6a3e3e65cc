"""Training's augmentation: ten numbers drawn on the host, carried out on the device.

A random resized crop, both mirrorings and a light colour jitter. Resizing and colours are four
fifths of what it costs to load a frame, more than a host has time for beside an accelerator, and
two products of matrices to a device. So a loader of a stage only decodes (the views of `crops.py`
are still the host's):

    host     JPEG ──decode_onto──▶ corner of a canvas uint8 [H, W, 3], `draw_augmentation` [10]
    device   canvas, numbers ──augment──▶ uint8 [S, S, 3]

The crop is resized as Pillow's `resize(box=...)` does it (antialiased bicubic, a = -0.5, pixels
just outside the box included), so that training sees frames through evaluation's filter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

CROP_AREA = (0.8, 1.0)
CROP_ASPECT = 4 / 3
BRIGHTNESS = CONTRAST = SATURATION = 0.12
MAX_HUE = 0.02
"""Largest change of HSV hue, in turns. Colour is an attribute: a red lesion has to stay red."""

DRAWS = 10
"""Uniform numbers an augmentation is drawn from, and numbers that it is."""

# Turning RGB about the grey axis by an angle turns the hexagonal HSV hue by at most 2π/(3√3) of it.
_MAX_TURN = MAX_HUE / (2 * math.pi / (3 * math.sqrt(3)))


def draw_augmentation(
    height: int, width: int, draws: Float[np.ndarray, "draws=10"]
) -> tuple[float, ...]:
    """The augmentation of a frame of `height` by `width` pixels from numbers in [0, 1).

    The crop keeps 0.8 to 1 of the area; both mirrorings (a colon has no upright) have probability
    one half; brightness, contrast and saturation vary by ±12 %, hue by at most `MAX_HUE`.

    Returns:
      height and width of the frame; top, left, height and width of the crop, negative where it is
      mirrored; factors of brightness, contrast and saturation; the angle about the grey axis.
    """
    area, aspect, x, y, bright, contrast, saturation, hue, over, across = draws.tolist()
    left, top, right, bottom = _crop_box(height, width, (area, aspect, x, y))
    if over < 0.5:
        top, bottom = bottom, top
    if across < 0.5:
        left, right = right, left
    return (
        *(height, width, top, left, bottom - top, right - left),
        1 + BRIGHTNESS * (2 * bright - 1),
        1 + CONTRAST * (2 * contrast - 1),
        1 + SATURATION * (2 * saturation - 1),
        2 * math.pi * _MAX_TURN * (2 * hue - 1),
    )


def augmented(batch: Mapping[str, Any], size: int) -> Mapping[str, Any]:
    """A batch with `image` seen through its `augmentation`; one that has none as it is."""
    if "augmentation" not in batch:
        return batch
    rest = {name: value for name, value in batch.items() if name != "augmentation"}
    return {**rest, "image": augment(batch["image"], batch["augmentation"], size)}


@partial(jax.jit, static_argnames="size")
def augment(
    images: UInt8[Array, "*batch h w 3"], augmentations: Float[Array, "*batch 10"], size: int
) -> UInt8[Array, "*batch size size 3"]:
    """What `draw_augmentation` drew, done to frames that lie in the top left of canvases.

    Nothing of a canvas beyond its frame is seen; an augmentation of zeros gives a black image.
    """
    *batch, height, width, channels = images.shape
    views = jax.lax.platform_dependent(
        images.reshape(-1, height, width, channels),
        augmentations.reshape(-1, DRAWS),
        # A processor's cache holds a frame, not a batch: one after the other takes half as long.
        cpu=lambda *frames: jax.lax.map(lambda frame: _augment_one(*frame, size=size), frames),
        default=jax.vmap(partial(_augment_one, size=size)),
    )
    return views.reshape(*batch, size, size, channels)


def _augment_one(
    image: UInt8[Array, "h w 3"], numbers: Float[Array, "numbers=10"], *, size: int
) -> UInt8[Array, "size size 3"]:
    canvas_height, canvas_width, _ = image.shape
    height, width, top, left, crop_height, crop_width, *jitter = jnp.unstack(numbers)
    across = _resize_weights(canvas_width, width, left, crop_width, size)
    down = _resize_weights(canvas_height, height, top, crop_height, size)
    # TensorFloat-32 where there is it: both factors to 2**-11, an eighth of a grey level.
    product = partial(jnp.einsum, precision=jax.lax.Precision.HIGH)
    pixels = jnp.clip(product("xw,hwc->hxc", across, image.astype(jnp.float32)), 0, 255)
    pixels = jnp.clip(product("yh,hxc->yxc", down, pixels), 0, 255)
    pixels = _jittered(pixels, *jitter)
    return jnp.clip(jnp.floor(pixels + 0.5), 0, 255).astype(jnp.uint8)


def _crop_box(
    height: int, width: int, draws: tuple[float, float, float, float]
) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) of a crop with a drawn area, aspect and place, within the frame.

    The aspect is relative to the frame's own, and bounded so that the area drawn always fits.
    """
    area = CROP_AREA[0] + (CROP_AREA[1] - CROP_AREA[0]) * draws[0]
    widest = min(CROP_ASPECT, 1 / area)
    aspect = widest ** (2 * draws[1] - 1)
    crop_width, crop_height = width * math.sqrt(area * aspect), height * math.sqrt(area / aspect)
    left, top = (width - crop_width) * draws[2], (height - crop_height) * draws[3]
    return left, top, min(left + crop_width, width), min(top + crop_height, height)


def _resize_weights(
    canvas: int,
    extent: Float[Array, ""],
    start: Float[Array, ""],
    span: Float[Array, ""],
    size: int,
) -> Float[Array, "size canvas"]:
    """One axis of Pillow's bicubic: what each of `size` pixels takes of each place of a canvas.

    The crop is `[start, start + span)` of the first `extent` places; a negative span mirrors.
    """
    scale = span / size
    stretch = jnp.maximum(jnp.abs(scale), 1)  # of the filter, to average where pixels get fewer
    centre = start + (jnp.arange(size)[:, None] + 0.5) * scale
    place = jnp.arange(canvas)
    weights = _cubic((place + 0.5 - centre) / stretch) * (place < extent)
    # Nowhere near zero but where there is no frame.
    return weights / jnp.maximum(jnp.sum(weights, axis=-1, keepdims=True), 1e-3)


def _cubic(x: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """Keys' kernel with a = -0.5, zero from 2 on."""
    x = jnp.minimum(jnp.abs(x), 2)
    return jnp.where(x < 1, (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2)


def _jittered(
    pixels: Float[Array, "h w 3"],
    brightness: Float[Array, ""],
    contrast: Float[Array, ""],
    saturation: Float[Array, ""],
    angle: Float[Array, ""],
) -> Float[Array, "h w 3"]:
    """The whole jitter as one affine map of RGB.

    Brightness and contrast (about the view's mean grey) are a gain and an offset; saturation
    scales, and hue turns, what is orthogonal to the grey axis. The matrix is therefore circulant.
    """
    along, across = saturation * jnp.cos(angle), saturation * jnp.sin(angle) / math.sqrt(3)
    gain = brightness * contrast
    same = gain * (1 + 2 * along) / 3
    following, previous = gain * ((1 - along) / 3 - across), gain * ((1 - along) / 3 + across)
    offset = (1 - contrast) * brightness * jnp.mean(pixels)
    return (
        same * pixels
        + following * jnp.roll(pixels, -1, axis=-1)
        + previous * jnp.roll(pixels, 1, axis=-1)
        + offset
    )
