"""Instruments and wounds: forceps, snare, bleeding and resection sites, clips."""

from __future__ import annotations

import numpy as np

from endoclip_jax.synthetic.anatomy import Scene
from endoclip_jax.synthetic.brush import Area, blend, oval, somewhere
from endoclip_jax.synthetic.textures import window

_METAL = (0.62, 0.64, 0.66)
_BLOOD = (0.50, 0.035, 0.03)
_BLOOD_NBI = (0.20, 0.08, 0.07)


def _blood(scene: Scene) -> tuple[float, float, float]:
    return _BLOOD_NBI if scene.imaging == "nbi" else _BLOOD


def draw_rod(
    rng: np.random.Generator,
    scene: Scene,
    tip: tuple[float, float],
    bearing: float,
    *,
    half_width: float,
    colour: tuple[float, float, float],
    rings: bool = False,
) -> None:
    """A round rod that comes into the field from `bearing` and ends at `tip` (px from centre)."""
    cos, sin = np.float32(np.cos(bearing)), np.float32(np.sin(bearing))
    dx, dy = scene.x - np.float32(tip[0]), scene.y - np.float32(tip[1])
    along = dx * cos + dy * sin
    across = (dy * cos - dx * sin) / (
        np.float32(half_width) * (1.0 + 0.12 * np.maximum(along, 0.0) / np.float32(scene.unit))
    )
    beyond = np.minimum(along, 0.0) / np.float32(half_width)
    rho = np.sqrt(across * across + beyond * beyond)
    scene.light *= 1.0 - 0.35 * np.exp(-np.square(np.maximum(rho - 0.8, 0.0) / 0.5))
    inside = np.clip((1.0 - rho) * np.float32(half_width / 1.5) + 0.5, 0, 1)
    scene.relief *= 1.0 - inside
    scene.relief += np.float32(half_width) * np.sqrt(np.maximum(1.0 - rho * rho, 0.0)) * inside
    scene.light += inside * (np.float32(1.0) - scene.light)
    blend(scene, (slice(None), slice(None)), inside, colour)
    if rings:
        pitch = np.float32(scene.unit * rng.uniform(0.3, 0.5))
        mark = inside * (np.abs(np.mod(along, pitch) - pitch / 2) < 1.5)
        blend(scene, (slice(None), slice(None)), mark, (0.75, 0.75, 0.72))


def forceps(rng: np.random.Generator, scene: Scene) -> None:
    """Open biopsy forceps; the jaws serve as a ruler."""
    bearing = rng.uniform(0, 2 * np.pi)
    reach = scene.unit * rng.uniform(0.45, 0.75)
    tip = (reach * np.cos(bearing), reach * np.sin(bearing))
    half_width = scene.unit * rng.uniform(0.045, 0.075)
    draw_rod(rng, scene, tip, bearing, half_width=half_width, colour=(0.55, 0.56, 0.58))
    for side in (-0.5, 0.5):
        heading = bearing + np.pi + side
        jaw = scene.unit * 0.16
        centre = (tip[0] + 0.9 * jaw * np.cos(heading), tip[1] + 0.9 * jaw * np.sin(heading))
        area, _, _, rho = oval(scene, centre, jaw, jaw * 0.33, heading, reach=1.3)
        _metal(scene, area, rho, jaw * 0.33)


def _metal(scene: Scene, area: Area, rho: np.ndarray, thickness: float) -> None:
    inside = np.clip((1.0 - rho) * np.float32(thickness) + 0.5, 0, 1)
    scene.light[area] *= 1.0 - 0.3 * np.clip(1.5 - rho, 0, 1)
    scene.light[area] += inside * (np.float32(0.9) - scene.light[area])
    scene.relief[area] += inside * np.float32(thickness) * np.clip(1 - rho * rho, 0, 1)
    scene.gloss[area] += inside
    blend(scene, area, inside, _METAL)


def snare(rng: np.random.Generator, scene: Scene) -> None:
    """A thin wire loop out of a pale catheter."""
    bearing = rng.uniform(0, 2 * np.pi)
    reach = scene.unit * rng.uniform(0.5, 0.8)
    tip = (reach * np.cos(bearing), reach * np.sin(bearing))
    sheath = ((0.85, 0.87, 0.92), (0.45, 0.55, 0.80))[rng.integers(2)]
    draw_rod(
        rng, scene, tip, bearing, half_width=scene.unit * rng.uniform(0.05, 0.08), colour=sheath
    )
    length = scene.unit * rng.uniform(0.22, 0.4)
    centre = (tip[0] - length * np.cos(bearing), tip[1] - length * np.sin(bearing))
    breadth = length * rng.uniform(0.45, 0.8)
    area, _, _, rho = oval(scene, centre, length, breadth, bearing, reach=1.15)
    wire = np.clip(1.6 - np.abs(rho - 1.0) * np.float32(breadth), 0, 1)
    scene.light[area] += wire * (np.float32(0.9) - scene.light[area])
    blend(scene, area, wire, (0.75, 0.75, 0.72))


def bleeding_wound(rng: np.random.Generator, scene: Scene) -> None:
    """A pale cut with blood that runs down the wall."""
    centre = somewhere(rng, scene, 0.4)
    size = scene.unit * rng.uniform(0.14, 0.3)
    area, _, _, rho = oval(
        scene, centre, size, size * rng.uniform(0.5, 0.9), rng.uniform(0, 3.14), reach=1.4
    )
    ragged = rho + np.float32(0.15) * window(rng, "rough", *rho.shape)
    blend(scene, area, np.clip((1.0 - ragged) * 6.0, 0, 1), (0.85, 0.70, 0.55))
    bearing = rng.uniform(0, 2 * np.pi)
    area, _, _, rho = oval(
        scene,
        (centre[0] + size * np.cos(bearing), centre[1] + size * np.sin(bearing)),
        size * rng.uniform(1.5, 3.0),
        size * rng.uniform(0.4, 0.8),
        bearing,
        reach=1.7,
    )
    pool = np.clip((1.0 - rho + np.float32(0.3) * window(rng, "patch", *rho.shape)) * 4.0, 0, 1)
    blend(scene, area, 0.95 * pool, _blood(scene))
    scene.relief[area] *= 1.0 - 0.7 * pool
    scene.gloss[area] += 1.2 * pool


def emr_wound(rng: np.random.Generator, scene: Scene) -> None:
    """A resection site: flat, bluish-white submucosa with a browned rim."""
    centre, size = somewhere(rng, scene, 0.3), scene.unit * rng.uniform(0.25, 0.55)
    area, _, _, rho = oval(
        scene, centre, size, size * rng.uniform(0.6, 0.95), rng.uniform(0, 3.14), reach=1.5
    )
    ragged = rho + np.float32(0.07) * window(rng, "rough", *rho.shape)
    bed = np.clip((1.0 - ragged) * 9.0, 0, 1)
    rim = np.exp(-np.square((ragged - 1.0) / 0.09))
    scene.relief[area] += np.float32(0.15 * size) * np.exp(-np.square((ragged - 1.15) / 0.2))
    scene.relief[area] *= 1.0 - 0.6 * bed
    blue = rng.uniform(0.0, 1.0)
    floor = (0.78 - 0.30 * blue, 0.74 - 0.08 * blue, 0.68 + 0.06 * blue)
    blend(scene, area, 0.92 * bed, floor)
    blend(scene, area, 0.75 * rim, (0.42, 0.26, 0.16))
    spots = np.clip((window(rng, "ripple", *rho.shape) - 2.0) * 3.0, 0, 1) * bed
    blend(scene, area, spots, _blood(scene))


def clips(rng: np.random.Generator, scene: Scene) -> None:
    """One to three metal clips on a closed wound."""
    centre, heading = somewhere(rng, scene, 0.4), rng.uniform(0, 2 * np.pi)
    size = scene.unit * rng.uniform(0.2, 0.3)
    area, _, _, rho = oval(scene, centre, size, size * 0.35, heading, reach=1.6)
    blend(scene, area, 0.7 * np.clip(1.2 - rho, 0, 1), (0.60, 0.16, 0.12))
    scene.relief[area] += np.float32(0.2 * size) * np.exp(-np.square((rho - 1.0) / 0.3))
    for k in range(int(rng.integers(1, 4))):
        shift = size * (0.6 * k - 0.6)
        foot = (centre[0] + shift * np.cos(heading), centre[1] + shift * np.sin(heading))
        stand = heading + np.pi / 2 + rng.uniform(-0.5, 0.5)
        length = scene.unit * rng.uniform(0.14, 0.22)
        middle = (foot[0] + length * np.cos(stand), foot[1] + length * np.sin(stand))
        area, _, _, rho = oval(scene, middle, length, length * 0.2, stand, reach=1.3)
        _metal(scene, area, rho, length * 0.2)
