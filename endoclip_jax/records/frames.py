"""One hospital image as it is stored: safely decoded, cut to the field of view, re-encoded."""

from __future__ import annotations

import io
import warnings

import numpy as np
import simplejpeg
from jaxtyping import Bool, UInt8
from PIL import Image

MAX_PIXELS = 50_000_000
MIN_SIDE = 32
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})

_PROFILE_SIDE = 96  # the field is sought at this resolution, at which strokes of text are thin
_SURROUND = (10, 28)  # the surround's grey levels end between these
_SURROUND_SHARE = 0.12  # ... at this share of the frame's brightness
_PART_OF_FIELD = 0.25  # a lumen may cut the field in parts; a part is this share of the largest
_ONE_BLOCK = 0.75  # of the bounding box; a disc fills 0.785
_SMALLEST_FIELD = 0.1  # of the frame's area; less is a dark frame, not a field


class FrameError(Exception):
    """Why an image cannot be stored, in words that name no file."""


def field_of_view(pixels: UInt8[np.ndarray, "h w 3"]) -> tuple[int, int, int, int]:
    """Bounding box (top, left, bottom, right) of the endoscope's field, in pixels, half-open.

    The field is the largest bright region that survives an opening wider than a stroke of text,
    so that names and dates in the surround do not widen the box. A frame without surround, or
    too dark to tell, is its own box. Exact to a 96th of the long side.
    """
    height, width = pixels.shape[:2]
    step = max(1, -(-max(height, width) // _PROFILE_SIDE))
    red, green, blue = np.moveaxis(pixels[step // 2 :: step, step // 2 :: step], 2, 0)
    brightness = np.maximum(np.maximum(red, green), blue)
    field = _field(brightness)
    if not field.any():
        return 0, 0, height, width
    rows, columns = np.flatnonzero(field.any(axis=1)), np.flatnonzero(field.any(axis=0))
    top, bottom = _edges(int(rows[0]), int(rows[-1]), step, height)
    left, right = _edges(int(columns[0]), int(columns[-1]), step, width)
    if (bottom - top) * (right - left) < _SMALLEST_FIELD * height * width:
        return 0, 0, height, width
    return top, left, bottom, right


def crop_and_cap(
    pixels: UInt8[np.ndarray, "h w 3"], long_side: int
) -> UInt8[np.ndarray, "h2 w2 3"]:
    """The field of view, reduced (bicubic, antialiased) if its long side exceeds `long_side`."""
    top, left, bottom, right = field_of_view(pixels)
    pixels = pixels[top:bottom, left:right]
    height, width = pixels.shape[:2]
    longest = max(height, width)
    if longest <= long_side:
        return np.ascontiguousarray(pixels)
    size = (max(1, round(width * long_side / longest)), max(1, round(height * long_side / longest)))
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0))


def decode_image(raw: bytes) -> UInt8[np.ndarray, "h w 3"]:
    """RGB pixels of an image file's bytes; FrameError if broken, too small or too large."""
    if raw[:2] == b"\xff\xd8":
        try:
            height, width = simplejpeg.decode_jpeg_header(raw)[:2]
            _check_size(height, width)
            return simplejpeg.decode_jpeg(raw, "RGB")
        except ValueError:  # CMYK and other rarities, or broken: Pillow decides
            pass
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(raw)) as image:
                _check_size(image.height, image.width)
                return np.asarray(image.convert("RGB"))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise FrameError(f"decompression bomb: more than {MAX_PIXELS} pixels") from None
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise FrameError("broken image") from error


def stored_jpeg(raw: bytes, long_side: int = 512, quality: int = 92) -> bytes:
    """The JPEG that is stored for an image file's bytes: cropped, capped, without metadata."""
    pixels = crop_and_cap(decode_image(raw), long_side)
    return simplejpeg.encode_jpeg(pixels, quality=quality, colorspace="RGB", colorsubsampling="420")


def _check_size(height: int, width: int) -> None:
    if height * width > MAX_PIXELS:
        raise FrameError(
            f"decompression bomb: {width} x {height} pixels, more than {MAX_PIXELS} in all"
        )
    if min(height, width) < MIN_SIDE:
        raise FrameError(f"image of {width} x {height} pixels, smaller than {MIN_SIDE}")


def _field(brightness: UInt8[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """The largest bright region after the opening, with parts of comparable size."""
    level = np.searchsorted(np.cumsum(np.bincount(brightness.ravel())), 0.95 * brightness.size)
    opened = _opened(brightness > np.clip(_SURROUND_SHARE * level, *_SURROUND))
    if _is_one_block(opened):
        return opened
    from scipy import ndimage  # seldom needed, slow to import

    regions, number = ndimage.label(opened)
    if number == 0:
        return opened
    areas = np.bincount(regions.ravel())
    areas[0] = 0
    return (areas >= _PART_OF_FIELD * areas.max())[regions]


def _is_one_block(mask: Bool[np.ndarray, "h w"]) -> bool:
    """Whether the mask fills most of its bounding box, so that nothing lies apart from it."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if len(rows) == 0:
        return False
    height, width = rows[-1] + 1 - rows[0], columns[-1] + 1 - columns[0]
    gapless = len(rows) == height and len(columns) == width
    return bool(gapless and np.count_nonzero(mask) >= _ONE_BLOCK * height * width)


def _opened(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Opening by a square of 3, for which the frame's edge is no edge."""
    for grow in (np.logical_and, np.logical_or):
        for along in (mask, mask.T):
            before = along.copy()
            grow(along[1:], before[:-1], out=along[1:])
            grow(along[:-1], before[1:], out=along[:-1])
    return mask


def _edges(first: int, last: int, step: int, extent: int) -> tuple[int, int]:
    """Pixel range of the sampled rows first..last; the frame's edge within one step of it."""
    start, stop = first * step, (last + 1) * step
    return (0 if start <= step else start), (extent if stop >= extent - step else stop)
