"""Small drawing primitives that the lesion, landmark and instrument drawings share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from endoclip_jax.synthetic.anatomy import Scene

Area = tuple[slice, slice]


def oval(
    scene: Scene,
    centre: tuple[float, float],
    length: float,
    breadth: float,
    bearing: float,
    reach: float = 1.1,
) -> tuple[Area, np.ndarray, np.ndarray, np.ndarray]:
    """The part of the frame round an ellipse: `(area, dx, dy, rho)`, `rho = 1` on the ellipse.

    `centre` is in px from the field's centre, `length` and `breadth` are half axes in px, the
    area reaches to `rho = reach` at least; it can be empty.
    """
    height, width = scene.shape
    span = reach * max(length, breadth)
    column, row = centre[0] + (width - 1) / 2, centre[1] + (height - 1) / 2
    area = (_clipped(row - span, row + span, height), _clipped(column - span, column + span, width))
    dx = scene.x[:, area[1]] - np.float32(centre[0]) + 0.0 * scene.y[area[0]]
    dy = scene.y[area[0]] - np.float32(centre[1]) + 0.0 * scene.x[:, area[1]]
    cos, sin = np.float32(np.cos(bearing)), np.float32(np.sin(bearing))
    along = (dx * cos + dy * sin) / np.float32(length)
    across = (dy * cos - dx * sin) / np.float32(breadth)
    return area, dx, dy, np.sqrt(along * along + across * across)


def _clipped(low: float, high: float, size: int) -> slice:
    start = min(max(0, int(low)), size)
    return slice(start, min(max(start, int(high) + 1), size))


def blend(
    scene: Scene, area: Area, mask: np.ndarray | np.float32, colour: Sequence[float] | np.ndarray
) -> None:
    """Mix `colour` into the albedo with weight `mask` (0–1)."""
    for channel in range(3):
        layer = scene.albedo[channel][area]
        layer += mask * (np.float32(colour[channel]) - layer)


def somewhere(rng: np.random.Generator, scene: Scene, spread: float) -> tuple[float, float]:
    """A random place within `spread` of the half axes, the better lit of three (px from centre)."""
    height, width = scene.shape
    reach = spread * np.sqrt(rng.random(3))
    bearing = rng.uniform(0, 2 * np.pi, 3)
    x, y = reach * np.cos(bearing) * width / 2, reach * np.sin(bearing) * height / 2
    rows = np.clip(y + height / 2, 0, height - 1).astype(int)
    columns = np.clip(x + width / 2, 0, width - 1).astype(int)
    best = int(np.argmax(scene.light[rows, columns]))
    return float(x[best]), float(y[best])
