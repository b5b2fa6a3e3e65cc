"""One hospital image as it is stored: safely decoded, upright, cut to the field, re-encoded."""

from __future__ import annotations

import functools
import io
import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import simplejpeg
from jaxtyping import Bool, UInt8
from PIL import Image

from endoclip_jax.records.dicom import DICOM_SUFFIXES, decode_dicom, is_dicom
from endoclip_jax.records.field import cut_to_field, field_of_view
from endoclip_jax.records.frame_errors import MAX_PIXELS, MIN_SIDE, FrameError, check_size
from endoclip_jax.records.overlay import looks_like_text

__all__ = [
    "DICOM_SUFFIXES", "IMAGE_SUFFIXES", "MAX_PIXELS", "MIN_SIDE", "FrameError", "StoredImage",
    "capped", "crop_and_cap", "decode_image", "encoded", "field_of_view", "stored_image",
    "stored_jpeg",
]  # fmt: skip

IMAGE_SUFFIXES = DICOM_SUFFIXES | {
    ".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"
}  # fmt: skip

_ORIENTATION = 0x0112  # of EXIF: how the camera was held
_EXIF_REACH = 65_536  # bytes of a JPEG in which its EXIF block begins
_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.transpose(1, 0, 2),
    6: lambda pixels: pixels[::-1].transpose(1, 0, 2),
    7: lambda pixels: pixels[::-1, ::-1].transpose(1, 0, 2),
    8: lambda pixels: pixels[:, ::-1].transpose(1, 0, 2),
}
_HASH_SIDE = 12  # the perceptual hash has this many bits squared


class StoredImage(NamedTuple):
    """An image as it is stored, and what was noticed on the way.

    `masked`: writing in the corners beside the field was blackened. `has_text`: writing seems to
    be left on the picture. `perceptual` is a hash that differs in few bits for similar pictures.
    """

    jpeg: bytes
    masked: bool
    has_text: bool
    perceptual: Bool[np.ndarray, " bits"]


def stored_image(raw: bytes, long_side: int = 512, quality: int = 92) -> StoredImage:
    """What is stored of an image file's bytes: cropped, capped, without metadata."""
    field, masked = cut_to_field(decode_image(raw))
    pixels = capped(field, long_side)
    return StoredImage(
        encoded(pixels, quality), masked, looks_like_text(pixels), perceptual_hash(pixels)
    )


def stored_jpeg(raw: bytes, long_side: int = 512, quality: int = 92) -> bytes:
    """The JPEG alone of `stored_image`."""
    return stored_image(raw, long_side, quality).jpeg


def crop_and_cap(
    pixels: UInt8[np.ndarray, "h w 3"], long_side: int
) -> UInt8[np.ndarray, "h2 w2 3"]:
    """The field of view, reduced (bicubic, antialiased) if its long side exceeds `long_side`."""
    return capped(cut_to_field(pixels)[0], long_side)


def capped(pixels: UInt8[np.ndarray, "h w 3"], long_side: int) -> UInt8[np.ndarray, "h2 w2 3"]:
    """The pixels, reduced (bicubic, antialiased) if their long side exceeds `long_side`."""
    height, width = pixels.shape[:2]
    longest = max(height, width)
    pixels = np.ascontiguousarray(pixels)
    if longest <= long_side:
        return pixels
    size = (max(1, round(width * long_side / longest)), max(1, round(height * long_side / longest)))
    image = Image.fromarray(pixels)
    return np.asarray(image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0))


def encoded(pixels: UInt8[np.ndarray, "h w 3"], quality: int) -> bytes:
    """As JPEG, without metadata."""
    return simplejpeg.encode_jpeg(pixels, quality=quality, colorspace="RGB", colorsubsampling="420")


def perceptual_hash(pixels: UInt8[np.ndarray, "h w 3"]) -> Bool[np.ndarray, " bits"]:
    """Whether each cell of a coarse grid is greener than its right neighbour: bool[144].

    Re-encoding and small changes of brightness change a few bits (up to 5 of 144 were seen);
    pictures of different places differ in 35 or more.
    """
    step = 2 if min(pixels.shape[:2]) >= 4 * _HASH_SIDE else 1
    green = pixels[::step, ::step, 1].astype(np.float32)  # whole numbers: sums below 2^24 are exact
    above, beside, sizes = _cells(*pixels.shape[:2], step)
    means = above @ green @ beside / sizes  # in float64
    return (means[:, :-1] > means[:, 1:]).ravel()


@functools.lru_cache(maxsize=256)
def _cells(height: int, width: int, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which of every `step`-th rows and columns each cell of the hash's grid has, and how many
    columns: float32[12, h], float32[w, 13], int[13]."""
    rows = np.linspace(0, height, _HASH_SIDE + 1).astype(int)[:-1] // step
    columns = np.linspace(0, width, _HASH_SIDE + 2).astype(int)[:-1] // step
    row, column = np.arange(-(-height // step)), np.arange(-(-width // step))
    above = np.searchsorted(rows, row, "right") - 1 == np.arange(_HASH_SIDE)[:, None]
    beside = (np.searchsorted(columns, column, "right") - 1)[:, None] == np.arange(_HASH_SIDE + 1)
    sizes = np.diff(np.append(columns, len(column)))
    return above.astype(np.float32), beside.astype(np.float32), sizes


def decode_image(raw: bytes) -> UInt8[np.ndarray, "h w 3"]:
    """RGB pixels of an image file's bytes, upright as its EXIF says.

    FrameError if it is broken, too small, too large, not of 8 bits, or several pictures in one.
    """
    if is_dicom(raw):
        return decode_dicom(raw)
    if raw[:2] == b"\xff\xd8":
        try:
            height, width = simplejpeg.decode_jpeg_header(raw)[:2]
            check_size(height, width)
            return _upright(simplejpeg.decode_jpeg(raw, "RGB"), _jpeg_orientation(raw))
        except ValueError:  # CMYK and other rarities, or broken: Pillow decides
            pass
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(raw)) as image:
                check_size(image.height, image.width)
                if image.mode[0] in "IF":
                    raise FrameError("image of more than 8 bits a sample")
                if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
                    raise FrameError("several pictures in one file: export them one by one")
                pixels = np.asarray(image.convert("RGB"))
                return _upright(pixels, _orientation(image))  # 1 where Pillow turned it already
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise FrameError(f"decompression bomb: more than {MAX_PIXELS} pixels") from None
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise FrameError("broken image") from error


def _upright(pixels: UInt8[np.ndarray, "h w 3"], orientation: int) -> UInt8[np.ndarray, "h2 w2 3"]:
    turn = _UPRIGHT.get(orientation)
    return pixels if turn is None else np.ascontiguousarray(turn(pixels))


def _jpeg_orientation(raw: bytes) -> int:
    if raw.find(b"Exif\0\0", 0, _EXIF_REACH) < 0:
        return 1
    try:
        with Image.open(io.BytesIO(raw)) as image:
            return _orientation(image)
    except OSError:
        return 1


def _orientation(image: Image.Image) -> int:
    """1 to 8; 1, upright, if the file does not say, or not in a form that can be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a corrupt EXIF block
            return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # what a malformed block raises is anybody's guess
        return 1
