"""Tileable texture atlases, built once per process from a fixed seed, and ways to sample them.

Every atlas is a float32 `[SIZE, SIZE]` field that wraps around.  Drawing noise afresh for each
frame would cost more than the rest of the frame, so frames take random windows of these instead.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw

SIZE = 512
_SEED = 20240611


def _rng(name: str) -> np.random.Generator:
    return np.random.default_rng([_SEED, *name.encode()])


def _band_noise(name: str, shortest: float, longest: float, slope: float = 0.0) -> np.ndarray:
    """Gaussian noise of zero mean and unit deviation, wavelengths (px) inside the band."""
    frequency = np.hypot(np.fft.fftfreq(SIZE)[:, None], np.fft.rfftfreq(SIZE)[None, :])
    inside = (frequency >= 1.0 / longest) & (frequency <= 1.0 / shortest)
    gain = np.where(inside, np.maximum(frequency, 1e-6) ** slope, 0.0)
    field = np.fft.irfft2(np.fft.rfft2(_rng(name).standard_normal((SIZE, SIZE))) * gain)
    return ((field - field.mean()) / field.std()).astype(np.float32)


def _cell_distances(name: str, pitch: int, jitter: float) -> tuple[np.ndarray, np.ndarray]:
    """Distances (in pitches) to the nearest and second nearest of jittered lattice points."""
    count = SIZE // pitch
    points = 0.5 + jitter * (_rng(name).random((2, count, count)) - 0.5)
    axis = (np.arange(SIZE) + 0.5) / pitch
    cell = np.floor(axis).astype(int)
    within = axis - cell
    first = np.full((SIZE, SIZE), 9.0)
    second = np.full((SIZE, SIZE), 9.0)
    for row in (-1, 0, 1):
        for column in (-1, 0, 1):
            index = np.ix_((cell + row) % count, (cell + column) % count)
            distance = np.hypot(
                row + points[0][index] - within[:, None],
                column + points[1][index] - within[None, :],
            )
            second = np.minimum(second, np.maximum(first, distance))
            first = np.minimum(first, distance)
    return first.astype(np.float32), second.astype(np.float32)


def _domes(name: str, pitch: int, jitter: float) -> np.ndarray:
    """One rounded bump per cell, in [0, 1], with clefts along the borders of the cells."""
    first, second = _cell_distances(name, pitch, jitter)
    level = np.clip((second - first) * 1.3, 0.0, 1.0)
    return (level * (2.0 - level)).astype(np.float32)


def _spheres(name: str, pitch: int, jitter: float) -> np.ndarray:
    """Crowded balls, in [0, 1]: round tops that meet in creases."""
    first, _ = _cell_distances(name, pitch, jitter)
    return np.sqrt(np.clip(1.0 - np.square(first / 0.85), 0.0, 1.0)).astype(np.float32)


def _dots(name: str, pitch: int, radius: float) -> np.ndarray:
    """Round dots of the given radius (in pitches) with soft borders, in [0, 1]."""
    first, _ = _cell_distances(name, pitch, 0.45)
    return np.clip((radius - first) * 6.0, 0.0, 1.0).astype(np.float32)


def _net(name: str, pitch: int, jitter: float, width: float) -> np.ndarray:
    """Thin mesh around the cells, in [0, 1]; `width` in pitches."""
    first, second = _cell_distances(name, pitch, jitter)
    return np.clip(1.0 - (second - first) / width, 0.0, 1.0).astype(np.float32)


def _vessel_tree(name: str, trunks: int, trunk_width: float) -> np.ndarray:
    """Branching vessels, in [0, 1], drawn at twice the size on a torus and reduced."""
    rng = _rng(name)
    scale = 2
    image = Image.new("L", (SIZE * scale, SIZE * scale))
    draw = ImageDraw.Draw(image)

    def grow(x: float, y: float, angle: float, width: float, length: float) -> None:
        while length > 0 and width > 0.55:
            step = 5.0
            angle += 0.22 * rng.standard_normal()
            end_x, end_y = x + step * np.cos(angle), y + step * np.sin(angle)
            shade = int(np.clip(110 + 60 * width, 0, 255))
            for shift_x in (-SIZE, 0, SIZE):
                for shift_y in (-SIZE, 0, SIZE):
                    line = [
                        (x + shift_x) * scale,
                        (y + shift_y) * scale,
                        (end_x + shift_x) * scale,
                        (end_y + shift_y) * scale,
                    ]
                    if -60 < line[0] < SIZE * scale + 60 and -60 < line[1] < SIZE * scale + 60:
                        draw.line(line, fill=shade, width=max(1, round(width * scale)))
            x, y, length = end_x, end_y, length - step
            width *= 0.985
            if rng.random() < 0.10:
                turn = rng.choice((-1.0, 1.0)) * rng.uniform(0.5, 1.1)
                grow(x, y, angle + turn, width * rng.uniform(0.55, 0.8), length * 0.7)

    for _ in range(trunks):
        grow(
            rng.uniform(0, SIZE),
            rng.uniform(0, SIZE),
            rng.uniform(0, 2 * np.pi),
            trunk_width * rng.uniform(0.6, 1.1),
            rng.uniform(120, 320),
        )
    reduced = image.resize((SIZE, SIZE), Image.Resampling.BOX)
    return np.asarray(reduced, np.float32) / 255.0


def _sharpened(name: str, wavelength: float) -> np.ndarray:
    """Meandering ridges (gyri) of one wavelength, in [-1, 1]."""
    return np.tanh(1.8 * _band_noise(name, wavelength * 0.8, wavelength * 1.25)).astype(np.float32)


_RECIPES: dict[str, Callable[[str], np.ndarray]] = {
    "cloud": lambda n: _band_noise(n, 48.0, 512.0, -1.3),
    "patch": lambda n: _band_noise(n, 20.0, 96.0, -0.7),
    "ripple": lambda n: _band_noise(n, 7.0, 26.0),
    "grain": lambda n: _band_noise(n, 2.5, 8.0),
    "white": lambda n: _band_noise(n, 2.0, 512.0),
    "rough": lambda n: _band_noise(n, 5.0, 96.0, -1.0),
    "domes": lambda n: _domes(n, 32, 0.8),
    "lobes": lambda n: _spheres(n, 64, 0.8),
    "gyri": lambda n: _sharpened(n, 22.0),
    "dots": lambda n: _dots(n, 16, 0.30),
    "net": lambda n: _net(n, 32, 0.75, 0.22),
    "vessels_fine": lambda n: _vessel_tree(n, 26, 2.0),
    "vessels_wide": lambda n: _vessel_tree(n, 12, 3.6),
}


@functools.cache
def atlas(name: str) -> np.ndarray:
    """The tileable `[SIZE, SIZE]` float32 field of this name; read-only."""
    field = np.ascontiguousarray(_RECIPES[name](name), np.float32)
    field.setflags(write=False)
    return field


@functools.cache
def _doubled(name: str) -> np.ndarray:
    return np.tile(atlas(name), (2, 2))


def window(rng: np.random.Generator, name: str, height: int, width: int) -> np.ndarray:
    """A random `[height, width]` window (each at most SIZE), at random upside down; a view."""
    top, left, mirrored = rng.integers(0, (SIZE, SIZE, 2))
    view = _doubled(name)[top : top + height, left : left + width]
    return view[::-1] if mirrored else view


def lookup(names: Sequence[str], u: np.ndarray, v: np.ndarray) -> list[np.ndarray]:
    """Nearest texels of several atlases at columns `u`, rows `v` (floats, wrapping around)."""
    index = (v.astype(np.intp) & (SIZE - 1)) * SIZE + (u.astype(np.intp) & (SIZE - 1))
    return [atlas(name).ravel().take(index) for name in names]


def lookup_smooth(name: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Bilinear interpolation at columns `u`, rows `v` (float texels, wrapping around)."""
    column, row = np.floor(u), np.floor(v)
    right, below = (u - column).astype(np.float32), (v - row).astype(np.float32)
    column, row = column.astype(np.intp), row.astype(np.intp)
    flat, last = atlas(name).ravel(), SIZE - 1
    near, far = (row & last) * SIZE, ((row + 1) & last) * SIZE
    west, east = column & last, (column + 1) & last
    top = flat.take(near + west)
    top += right * (flat.take(near + east) - top)
    bottom = flat.take(far + west)
    bottom += right * (flat.take(far + east) - bottom)
    top += below * (bottom - top)
    return top
