"""The colon as the endoscope sees it: tube, haustral folds, mucosa, vessels and light.

A `Scene` holds what is needed to shade a frame; everything else in `synthetic` edits it.
Lengths are pixels; `unit` is half the height of the field of view.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from endoclip_jax.synthetic.textures import SIZE, lookup, window

_ANGLES = 360
_ORDERS = (1, 2, 3, 4, 5, 8)
_SWINGS = (0.10, 0.10, 0.05, 0.03, 0.03, 0.012)


@dataclass
class Scene:
    """One field of view before shading; arrays are float32 `[H, W]` unless said otherwise."""

    imaging: str
    unit: float
    x: np.ndarray  # [1, W] px from the centre of the field
    y: np.ndarray  # [H, 1]
    lumen: tuple[float, float]  # px from the centre of the field
    light: np.ndarray  # illumination that reaches each point
    relief: np.ndarray  # height above the wall, px
    albedo: np.ndarray  # [3, H, W]
    base: np.ndarray  # [3] colour of the bare mucosa
    gloss: np.ndarray  # readiness to show specular highlights
    lamp: tuple[float, float]  # px from the centre of the field

    @property
    def shape(self) -> tuple[int, int]:
        return self.light.shape  # type: ignore[return-value]


_WLI_MUCOSA = np.array(
    [
        [0.84, 0.50, 0.40],
        [0.86, 0.52, 0.33],
        [0.80, 0.44, 0.37],
        [0.84, 0.56, 0.44],
        [0.82, 0.45, 0.27],
    ],
    np.float32,
)
_NBI_MUCOSA = np.array([[0.50, 0.53, 0.42], [0.46, 0.55, 0.47], [0.56, 0.52, 0.39]], np.float32)


def _mucosa_colour(rng: np.random.Generator, imaging: str) -> np.ndarray:
    palette = _NBI_MUCOSA if imaging == "nbi" else _WLI_MUCOSA
    weights = rng.dirichlet(np.full(len(palette), 0.8)).astype(np.float32)
    tint = 1.0 + 0.03 * rng.standard_normal(3).astype(np.float32)
    return (weights @ palette) * tint


def _lumen_offset(rng: np.random.Generator, view: str) -> float:
    low, high = {"tube": (0.0, 0.40), "oblique": (0.55, 1.05), "wall": (1.2, 2.0)}[view]
    return rng.uniform(low, high)


@functools.cache
def _ring_basis() -> tuple[np.ndarray, np.ndarray]:
    """Angles of the bins `[_ANGLES]` and cosines, then sines, of each order over them."""
    angle = np.linspace(-np.pi, np.pi, _ANGLES, endpoint=False)
    orders = np.asarray(_ORDERS)[:, None] * angle
    return angle, np.concatenate([np.cos(orders), np.sin(orders)])


def _contour(rng: np.random.Generator, irregularity: float, triangular: float) -> np.ndarray:
    """Relative radius of a ring per angle bin, float32 `[_ANGLES]`."""
    _, basis = _ring_basis()
    weights = irregularity * np.tile(_SWINGS, 2) * rng.standard_normal(2 * len(_ORDERS))
    weights[_ORDERS.index(3)] += triangular
    return np.clip(1.0 + weights @ basis, 0.5, 1.6).astype(np.float32)


def open_scene(
    rng: np.random.Generator,
    height: int,
    width: int,
    *,
    imaging: str,
    view: str,
    folds: tuple[int, int] = (3, 7),
    narrowing: float = 1.0,
    vessel_strength: float = 1.0,
) -> Scene:
    """A stretch of empty colon; `view` is "tube", "oblique" or "wall" (lumen in, at, out of sight).

    `narrowing` scales the lumen's radius, `vessel_strength` the contrast of the vessels.
    """
    unit = height / 2.0
    x = (np.arange(width, dtype=np.float32) - (width - 1) / 2)[None, :]
    y = (np.arange(height, dtype=np.float32) - (height - 1) / 2)[:, None]
    bearing = rng.uniform(0, 2 * np.pi)
    offset = _lumen_offset(rng, view) * unit
    lumen = (float(offset * np.cos(bearing) * width / height), float(offset * np.sin(bearing)))
    lamp = (float(rng.uniform(-0.3, 0.3) * unit), float(rng.uniform(-0.35, 0.15) * unit))
    tilt, stretch = rng.uniform(-0.25, 0.25), rng.uniform(0.85, 1.25)

    dx, dy = (x - np.float32(lumen[0])) / unit, (y - np.float32(lumen[1])) / unit
    dy = dy * np.float32(stretch) + np.float32(tilt) * dx
    radius = np.sqrt(dx * dx + dy * dy) + np.float32(1e-3)
    angle = np.arctan2(dy, np.broadcast_to(dx, dy.shape))

    # Tube and light vary slowly: half the resolution is enough for them.
    light, relief = _tube(
        rng,
        radius[::2, ::2],
        angle[::2, ::2],
        unit=unit,
        folds=folds,
        view=view,
        narrowing=narrowing,
        reach=float(np.hypot(*lumen)) / unit + 1.2,
    )
    light *= _lamp_falloff(rng, x[:, ::2], y[::2], lamp, unit)
    light, relief = _enlarge(light, height, width), _enlarge(relief, height, width)

    base = _mucosa_colour(rng, imaging)
    albedo = _mucosa(rng, base, angle, radius, height, width, imaging, vessel_strength)
    relief += np.float32(rng.uniform(0.10, 0.35)) * window(rng, "ripple", height, width)
    relief += np.float32(rng.uniform(0.3, 1.6)) * window(rng, "patch", height, width)
    relief += np.float32(rng.uniform(2.0, 9.0)) * window(rng, "cloud", height, width)
    gloss = window(rng, "cloud", height, width).copy()
    return Scene(imaging, unit, x, y, lumen, light, relief, albedo, base, gloss, lamp)


def _enlarge(field: np.ndarray, height: int, width: int) -> np.ndarray:
    """Twice the resolution, linear in between; `field` holds every second row and column."""
    rows = np.repeat(field, 2, axis=0)
    rows[1:-1:2] += field[1:]
    rows[1:-1:2] *= np.float32(0.5)
    full = np.repeat(rows, 2, axis=1)
    full[:, 1:-1:2] += rows[:, 1:]
    full[:, 1:-1:2] *= np.float32(0.5)
    return np.ascontiguousarray(full[:height, :width])


def _tube(
    rng: np.random.Generator,
    radius: np.ndarray,
    angle: np.ndarray,
    *,
    unit: float,
    folds: tuple[int, int],
    view: str,
    narrowing: float,
    reach: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Light (falling off with depth) and relief (px) of a tube with folds, in polar coordinates."""
    bins = ((angle + np.float32(np.pi)) * np.float32(_ANGLES / (2 * np.pi))).astype(np.intp)
    bins %= _ANGLES
    triangular = rng.uniform(0.06, 0.16) if rng.random() < 0.3 else 0.0
    throat = rng.uniform(0.3, 0.6) if view == "wall" else rng.uniform(0.16, 0.38) * narrowing
    shape = _contour(rng, 1.0, triangular)
    depth = radius / (np.float32(throat) * shape.take(bins))
    light = depth * depth
    light = light / (light + np.float32(rng.uniform(1.5, 5.0)))
    relief = np.zeros_like(light)
    ring = rng.uniform(0.75, 1.0) * reach
    number = int(rng.integers(folds[0], folds[1] + 1)) if folds[1] else 0
    if view != "tube":
        number = number // 2 + int(rng.integers(0, 2))
    for _ in range(number):
        ring *= rng.uniform(0.60, 0.84)
        if ring < throat * 0.5:
            break
        _add_fold(rng, light, relief, radius, bins, ring * shape, unit)
    return light, relief


def _add_fold(
    rng: np.random.Generator,
    light: np.ndarray,
    relief: np.ndarray,
    radius: np.ndarray,
    bins: np.ndarray,
    ring: np.ndarray,
    unit: float,
) -> None:
    """One crescent fold: a lit face outside its edge, the wall behind it in shadow (in place)."""
    angle, _ = _ring_basis()
    size = float(ring.mean())
    crescent = rng.uniform(0.5, 1.2) * np.cos(angle - rng.uniform(-np.pi, np.pi))
    crescent = np.clip(crescent + rng.uniform(0.0, 0.8), 0.0, 1.0).astype(np.float32)
    edge = ring * _contour(rng, 0.45, 0.0) * (1.06 - 0.14 * crescent)
    presence = crescent.take(bins)
    behind = edge.take(bins) - radius
    face = np.float32(rng.uniform(0.08, 0.2) * size + 0.02)
    hidden = np.clip(behind * np.float32(unit / rng.uniform(2.0, 5.0)) + 0.5, 0.0, 1.0)
    fading = np.maximum(behind, 0.0) / np.float32(rng.uniform(0.10, 0.32) * size + 0.03)
    light *= 1.0 - np.float32(rng.uniform(0.35, 0.75)) * presence * hidden / (1.0 + fading * fading)
    lit = (behind + 0.6 * face) / face
    lit = presence / (1.0 + lit * lit) * (1.0 - hidden)
    light *= 1.0 + np.float32(rng.uniform(0.1, 0.35)) * lit
    relief += np.float32(min(float(face), 0.14) * unit * rng.uniform(0.3, 0.8)) * lit


def _lamp_falloff(
    rng: np.random.Generator, x: np.ndarray, y: np.ndarray, lamp: tuple[float, float], unit: float
) -> np.ndarray:
    """Uneven light: brighter towards a near wall, darker towards the rim of the field."""
    bearing = rng.uniform(0, 2 * np.pi)
    slope = (rng.uniform(0.5, 0.95) if rng.random() < 0.3 else rng.uniform(0.0, 0.4)) / unit
    side = 1.0 + np.float32(slope * np.cos(bearing)) * x + np.float32(slope * np.sin(bearing)) * y
    distance = np.square((x - lamp[0]) / unit) + np.square((y - lamp[1]) / unit)
    vignette = 1.0 / (1.0 + np.float32(rng.uniform(0.22, 0.5)) * distance)
    return np.maximum(side, 0.2) * vignette


def _mucosa(
    rng: np.random.Generator,
    base: np.ndarray,
    angle: np.ndarray,
    radius: np.ndarray,
    height: int,
    width: int,
    imaging: str,
    vessel_strength: float,
) -> np.ndarray:
    """Albedo `[3, H, W]` with mottling and branching vessels that follow the wall."""
    mottling = np.float32(rng.uniform(0.015, 0.05)) * window(rng, "patch", height, width)
    mottling += np.float32(rng.uniform(0.008, 0.025)) * window(rng, "grain", height, width)
    mottling += np.float32(1.0)
    flush = np.float32(rng.uniform(0.01, 0.06)) * window(rng, "cloud", height, width)
    texels = np.float32(2 * SIZE / (2 * np.pi))
    u = angle * texels + np.float32(rng.uniform(4 * SIZE, 5 * SIZE))
    v = np.log(radius) * texels + np.float32(rng.uniform(8 * SIZE, 9 * SIZE))
    u, v = (u, v) if rng.random() < 0.5 else (v, u)
    fine, wide = lookup(("vessels_fine", "vessels_wide"), u, v)
    visible = np.clip(0.5 * window(rng, "cloud", height, width) + rng.uniform(0.1, 1.0), 0.0, 1.0)
    visible *= np.float32(vessel_strength * rng.uniform(0.15, 0.5))
    fine *= visible
    wide *= visible
    wide *= np.float32(rng.uniform(0.3, 1.1))
    if imaging == "nbi":
        absorbed = ((0.8, 1.6), (1.4, 0.5), (1.7, 0.2))  # superficial brown, deep cyan
    else:
        absorbed = ((0.25, 0.35), (1.1, 1.1), (1.0, 0.9))
    albedo = np.empty((3, height, width), np.float32)
    for channel, (thin, thick) in enumerate(absorbed):
        tone = np.float32(-thin) * fine
        tone -= np.float32(thick) * wide
        tone += mottling
        if channel:
            tone -= flush
        np.multiply(tone, base[channel], out=albedo[channel])
    return albedo
