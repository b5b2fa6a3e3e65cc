"""From a scene to pixels: shading, highlights, exposure, blur and sensor noise."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from endoclip_jax.synthetic.anatomy import Scene
from endoclip_jax.synthetic.textures import window

_LEVELS = 2048
_BRIGHTEST = 3.0
_SCATTERED = 0.3
# Set once so that a cohort's mean colour is that of EndoKED's normalisation (domain notes, 4.3).
_GAINS = (0.98, 1.06, 1.01)
_HIGHLIGHT = (252.0, 250.0, 246.0)


@dataclass(frozen=True)
class Camera:
    """How the frame is taken: `blur` in px, `noise` in 8-bit grey levels."""

    exposure: float
    highlights: float  # share of the field that is saturated by reflections
    blur: float
    noise: float


def shade(rng: np.random.Generator, scene: Scene, camera: Camera) -> Image.Image:
    """The rectangle round the field of view, RGB."""
    slope_x = np.zeros(scene.shape, np.float32)
    slope_y = np.zeros(scene.shape, np.float32)
    np.subtract(scene.relief[:, 2:], scene.relief[:, :-2], out=slope_x[:, 1:-1])
    np.subtract(scene.relief[2:], scene.relief[:-2], out=slope_y[1:-1])
    slope_x *= 0.5
    slope_y *= 0.5
    lamp_distance = np.float32(1.5 * scene.unit)
    toward_x = (np.float32(scene.lamp[0]) - scene.x) / lamp_distance
    toward_y = (np.float32(scene.lamp[1]) - scene.y) / lamp_distance
    facing = 1.0 - slope_x * toward_x - slope_y * toward_y
    facing /= np.sqrt(1.0 + slope_x * slope_x + slope_y * slope_y)
    # Tissue scatters light: no slope turns quite black.
    light = np.float32(_SCATTERED) + np.float32(1.0 - _SCATTERED) * np.clip(facing, 0.0, 1.6)
    light *= scene.light
    reflected = _highlights(rng, scene, slope_x, slope_y, toward_x, toward_y, camera.highlights)

    curves = _tone_curves(scene.imaging)
    grain = np.float32(2.0 * camera.noise) * window(rng, "white", *scene.shape)
    light *= np.float32(camera.exposure * (_LEVELS - 1) / _BRIGHTEST)
    planes = []
    for channel in range(3):
        level = scene.albedo[channel] * light
        np.clip(level, 0, _LEVELS - 1, out=level)
        plane = curves[channel].take(level.astype(np.intp))
        plane += reflected * (np.float32(_HIGHLIGHT[channel]) - plane)
        plane += grain
        planes.append(Image.fromarray(np.clip(plane, 0, 255, out=plane).astype(np.uint8)))
    return Image.merge("RGB", planes).filter(_lens(camera.blur))


def _lens(blur: float) -> ImageFilter.Filter | ImageFilter.Kernel:
    """A blur of that deviation (px); the small ones by a single 3 × 3 pass."""
    if blur > 0.85:
        return ImageFilter.GaussianBlur(blur)
    side = blur * blur / 2.0  # a three-tap filter (side, 1 - 2 side, side) has variance 2 side
    taps = np.array([side, 1.0 - 2.0 * side, side])
    return ImageFilter.Kernel((3, 3), list(np.outer(taps, taps).ravel()), scale=1.0)


def _highlights(
    rng: np.random.Generator,
    scene: Scene,
    slope_x: np.ndarray,
    slope_y: np.ndarray,
    toward_x: np.ndarray,
    toward_y: np.ndarray,
    share: float,
) -> np.ndarray:
    """Strength (0–1) of the mirror image of the lamp: where the wet surface faces it."""
    miss_x, miss_y = slope_x + 0.5 * toward_x, slope_y + 0.5 * toward_y
    score = np.float32(0.10) * scene.gloss - np.sqrt(miss_x * miss_x + miss_y * miss_y)
    score += np.float32(0.5) * np.minimum(scene.light, 0.5)
    score += np.float32(0.05) * window(rng, "ripple", *scene.shape)
    sample = score[::4, ::4].ravel()
    rank = int((1.0 - share) * (sample.size - 1))
    threshold = np.partition(sample, rank)[rank]
    return np.clip((score - np.float32(threshold)) * 22.0, 0.0, 1.0)


@functools.cache
def _tone_curves(imaging: str) -> np.ndarray:
    """Display curves `[3, _LEVELS]` in grey levels: shadows turn red, bright walls saturate."""
    linear = np.linspace(0.0, _BRIGHTEST, _LEVELS)
    powers = (1.0, 1.0, 1.0) if imaging == "nbi" else (0.92, 1.06, 1.12)
    levels = np.array([gain * linear**power for gain, power in zip(_GAINS, powers, strict=True)])
    return (255.0 * levels / (1.0 + levels**5) ** 0.2).astype(np.float32)
