from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from endoclip_jax.records.frames import (
    MAX_PIXELS,
    FrameError,
    crop_and_cap,
    decode_image,
    field_of_view,
    stored_jpeg,
)


def frame(height, width, box, shape, overlay=True, seed=0):
    """Mucosa-like noise in a field of some shape, with text and small blocks in the surround."""
    rng = np.random.default_rng(seed)
    canvas = Image.fromarray(rng.integers(0, 9, (height, width, 3), dtype=np.uint8))
    top, left, bottom, right = box
    mucosa = rng.integers(60, 230, (height, width, 3), dtype=np.uint8)
    mucosa[height // 2 :, width // 2 :] //= 3  # a dark side
    mask = Image.new("L", (width, height))
    pen = ImageDraw.Draw(mask)
    if shape == "ellipse":
        pen.ellipse((left, top, right - 1, bottom - 1), fill=255)
    else:
        cut = min(bottom - top, right - left) // 4 if shape == "octagon" else 0
        x0, y0, x1, y1 = left, top, right - 1, bottom - 1
        pen.polygon(
            [(x0 + cut, y0), (x1 - cut, y0), (x1, y0 + cut), (x1, y1 - cut),
             (x1 - cut, y1), (x0 + cut, y1), (x0, y1 - cut), (x0, y0 + cut)],
            fill=255,
        )  # fmt: skip
    canvas.paste(Image.fromarray(mucosa), mask=mask)
    if overlay:
        pen = ImageDraw.Draw(canvas)
        for line in range(8):
            pen.text((3, 5 + line * 24), f"ID{line} 2019", fill=(255, 255, 255))
        pen.rectangle((4, height - 12, 10, height - 6), fill=(255, 255, 0))
    return np.asarray(canvas)


@pytest.mark.parametrize("shape", ["rectangle", "octagon", "ellipse"])
@pytest.mark.parametrize(
    "height, width, box",
    [
        (288, 360, (10, 90, 280, 352)),
        (576, 720, (30, 170, 550, 700)),
        (512, 640, (0, 140, 512, 640)),
    ],
)
def test_the_field_is_found_beside_overlay_text(shape, height, width, box):
    found = field_of_view(frame(height, width, box, shape))
    step = -(-width // 128)
    assert np.abs(np.subtract(found, box)).max() <= 2 * step


def test_a_frame_without_surround_and_a_dark_frame_are_whole():
    assert field_of_view(frame(256, 256, (0, 0, 256, 256), "rectangle", overlay=False)) == (
        0, 0, 256, 256
    )  # fmt: skip
    assert field_of_view(np.zeros((100, 120, 3), np.uint8)) == (0, 0, 100, 120)


def test_a_lumen_across_the_field_does_not_halve_it():
    pixels = frame(288, 360, (10, 90, 280, 352), "rectangle").copy()
    pixels[:, 200:240] = 2
    assert field_of_view(pixels)[1] < 100 and field_of_view(pixels)[3] > 340


@settings(max_examples=30, deadline=None)
@given(
    height=st.integers(32, 300), width=st.integers(32, 300), long_side=st.integers(32, 200),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_the_stored_frame_keeps_its_proportions(height, width, long_side, seed):
    pixels = np.random.default_rng(seed).integers(80, 255, (height, width, 3), dtype=np.uint8)
    top, left, bottom, right = field_of_view(pixels)
    assert 0 <= top < bottom <= height and 0 <= left < right <= width
    stored = crop_and_cap(pixels, long_side)
    assert max(stored.shape[:2]) == min(long_side, max(bottom - top, right - left))
    ratio = (right - left) / (bottom - top)
    assert abs(stored.shape[1] - ratio * stored.shape[0]) <= max(1, ratio)
    assert stored.dtype == np.uint8 and stored.flags.c_contiguous


def test_a_smaller_frame_is_stored_pixel_for_pixel_before_its_encoding():
    pixels = frame(96, 96, (0, 0, 96, 96), "rectangle", overlay=False)
    np.testing.assert_array_equal(crop_and_cap(pixels, 512), pixels)


def image_bytes(pixels, format, **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format, **options)
    return buffer.getvalue()


def test_exif_and_comments_are_gone():
    exif = Image.Exif()
    exif[0x010E] = "Jane Roe 1950"
    exif[0x8825] = {1: "N"}
    pixels = frame(128, 128, (0, 0, 128, 128), "rectangle", overlay=False)
    raw = image_bytes(pixels, "JPEG", exif=exif, comment=b"Jane Roe")
    assert b"Jane Roe" in raw
    stored = stored_jpeg(raw)
    assert b"Jane" not in stored and b"Exif" not in stored
    with Image.open(io.BytesIO(stored)) as image:
        assert not image.getexif() and "comment" not in image.info


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "JPEG"])
def test_every_format_decodes_to_the_same_picture(format):
    gradient = np.linspace(40, 220, 64, dtype=np.uint8)
    pixels = np.stack([np.tile(gradient, (48, 1))] * 3, axis=2)
    decoded = decode_image(image_bytes(pixels, format))
    assert np.abs(decoded.astype(int) - pixels).max() <= (3 if format == "JPEG" else 0)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_cmyk_jpegs_become_rgb(mode):
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48), (120, 120, 120)).convert(mode).save(buffer, "JPEG")
    decoded = decode_image(buffer.getvalue())
    assert decoded.shape == (48, 64, 3) and np.abs(decoded.astype(int) - 120).max() <= 3


def bomb_png(side):
    """A PNG that claims side x side pixels in a few bytes."""

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IEND", b"")


def bomb_jpeg(side):
    """A JPEG whose header claims side x side pixels."""
    raw = bytearray(image_bytes(np.zeros((64, 64, 3), np.uint8), "JPEG"))
    start = raw.index(b"\xff\xc0") + 5
    raw[start : start + 4] = struct.pack(">HH", side, side)
    return bytes(raw)


@pytest.mark.parametrize(
    "raw", [bomb_png(8000), bomb_png(11000), bomb_png(60000), bomb_jpeg(60000)]
)
def test_a_decompression_bomb_is_refused_before_it_is_unpacked(raw):
    assert MAX_PIXELS < 8000**2
    with pytest.raises(FrameError, match="decompression bomb"):
        decode_image(raw)


def test_broken_and_tiny_images_are_refused():
    whole = image_bytes(np.random.default_rng(0).integers(0, 255, (99, 99, 3), np.uint8), "JPEG")
    for raw in (b"", b"no image", whole[: len(whole) // 2], whole[:20]):
        with pytest.raises(FrameError, match="broken image"):
            decode_image(raw)
    with pytest.raises(FrameError, match="smaller than"):
        decode_image(image_bytes(np.zeros((8, 200, 3), np.uint8), "PNG"))
