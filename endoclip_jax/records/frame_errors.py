"""What makes an image unfit to be stored."""

from __future__ import annotations

MAX_PIXELS = 50_000_000
MIN_SIDE = 32


class FrameError(Exception):
    """Why an image cannot be stored, in words that name no file."""


def check_size(height: int, width: int) -> None:
    """FrameError for an image too large to be unpacked safely, or too small to be of use."""
    if height * width > MAX_PIXELS:
        raise FrameError(
            f"decompression bomb: {width} x {height} pixels, more than {MAX_PIXELS} in all"
        )
    if min(height, width) < MIN_SIDE:
        raise FrameError(f"image of {width} x {height} pixels, smaller than {MIN_SIDE}")
