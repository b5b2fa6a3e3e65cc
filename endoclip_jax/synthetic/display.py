"""What surrounds the picture on the processor's screen: field of view and overlay text.

Everything here is drawn from a generator of its own, so that the border of a frame says nothing
about its content.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

HEIGHT, WIDTH = 288, 360


@dataclass(frozen=True)
class Display:
    """Black screen with text, and where the field of view goes on it."""

    screen: Image.Image  # RGB, WIDTH × HEIGHT
    top: int
    left: int
    mask: Image.Image  # grey, 255 inside the field of view


def sample_display(rng: np.random.Generator) -> Display:
    """A screen layout: field shape, place and text."""
    height = int(HEIGHT * rng.uniform(0.75, 0.85))
    shape = rng.choice(("octagon", "rounded", "circle"), p=(0.62, 0.24, 0.14))
    aspect = {"octagon": rng.uniform(1.14, 1.28), "rounded": rng.uniform(1.05, 1.2), "circle": 1.0}[
        str(shape)
    ]
    width = int(height * aspect)
    left = WIDTH - width - int(rng.integers(3, 16))
    top = (HEIGHT - height) // 2 + int(rng.integers(-8, 9))
    screen = Image.new("RGB", (WIDTH, HEIGHT), (int(rng.integers(0, 5)),) * 3)
    _write_overlay(rng, screen, left)
    mask = _field_mask(rng, str(shape), height, width)
    return Display(screen, top, left, mask)


def _field_mask(rng: np.random.Generator, shape: str, height: int, width: int) -> Image.Image:
    x = np.abs(np.arange(width, dtype=np.float32) - (width - 1) / 2)[None, :]
    y = np.abs(np.arange(height, dtype=np.float32) - (height - 1) / 2)[:, None]
    half_width, half_height = np.float32(width / 2), np.float32(height / 2)
    if shape == "octagon":
        cut = np.float32(rng.uniform(0.36, 0.56)) * half_height
        margin = np.minimum(
            np.minimum(half_width - x, half_height - y),
            (half_width + half_height - cut - x - y) * np.float32(0.7071),
        )
    elif shape == "rounded":
        corner = np.float32(rng.uniform(0.2, 0.45)) * half_height
        inset_x = np.maximum(x - (half_width - corner), 0.0)
        inset_y = np.maximum(y - (half_height - corner), 0.0)
        margin = corner - np.sqrt(inset_x * inset_x + inset_y * inset_y)
    else:
        margin = half_height - np.sqrt(x * x + y * y)
    return Image.fromarray((255 * np.clip(margin, 0.0, 1.0)).astype(np.uint8))


@functools.cache
def _font() -> ImageFont.ImageFont:
    return ImageFont.load_default_imagefont()


def _write_overlay(rng: np.random.Generator, screen: Image.Image, left: int) -> None:
    """Date, time, codes and arrows in the left margin, clipped before the field of view."""
    strip = screen.crop((0, 0, left - 1, HEIGHT))
    draw = ImageDraw.Draw(strip)
    font = _font()
    shade = int(rng.integers(150, 240))
    ink = (shade, shade, int(shade * rng.uniform(0.8, 1.0)))
    day, month, year = rng.integers(1, 29), rng.integers(1, 13), rng.integers(2012, 2024)
    hour, minute, second = rng.integers(7, 19), rng.integers(0, 60), rng.integers(0, 60)
    lines = [
        f"{day:02d}/{month:02d}/{year}",
        f"{hour:02d}:{minute:02d}:{second:02d}",
        f"Ct:{'NA'[rng.integers(2)]} Eh:{'AB'[rng.integers(2)]}{rng.integers(1, 9)}",
        f"CVP:{rng.integers(1, 20)}",
        f"D.F:{rng.integers(1, 9)}",
        "NBI" if rng.random() < 0.2 else "",
        f"No.{rng.integers(1, 99):02d}",
    ]
    row = int(rng.integers(8, 40))
    for line in lines:
        if rng.random() < 0.7:
            draw.text((4, row), line, fill=ink, font=font)
            row += int(rng.integers(13, 20))
    if rng.random() < 0.5:
        arrow = int(rng.integers(200, 260))
        draw.polygon([(6, arrow), (16, arrow - 4), (16, arrow + 4)], fill=ink)
    if rng.random() < 0.4:
        box = int(rng.integers(150, 200))
        draw.rectangle((4, box, 4 + int(rng.integers(18, 34)), box + 22), outline=ink)
    screen.paste(strip, (0, 0))
