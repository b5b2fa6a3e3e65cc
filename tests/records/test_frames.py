from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont, ImageOps
from scipy import ndimage

from endoclip_jax.records import field as field_module
from endoclip_jax.records import overlay
from endoclip_jax.records.field import cut_to_field
from endoclip_jax.records.frames import (
    MAX_PIXELS,
    FrameError,
    crop_and_cap,
    decode_image,
    field_of_view,
    perceptual_hash,
    stored_image,
    stored_jpeg,
)
from endoclip_jax.records.overlay import looks_like_text


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


def text_on(pixels, place, size=11, shade=(230, 230, 230)):
    canvas = Image.fromarray(pixels)
    pen = ImageDraw.Draw(canvas)
    font = ImageFont.load_default_imagefont()
    for line, words in enumerate(("12/03/2019", "ROE JANE")):
        pen.text((place[0], place[1] + line * (size + 4)), words, fill=shade, font=font)
    return np.asarray(canvas)


@pytest.mark.parametrize("shape", ["octagon", "ellipse"])
def test_writing_in_the_corners_is_blackened_and_no_mucosa_is(shape):
    box = (10, 90, 280, 352)
    clean = frame(288, 360, box, shape, overlay=False)
    cut, masked = cut_to_field(clean)
    top, left, bottom, right = field_of_view(clean)
    assert not masked
    np.testing.assert_array_equal(cut, clean[top:bottom, left:right])
    written = clean.copy()
    written[top : top + 9, left : left + 12] = text_on(np.zeros((40, 90, 3), np.uint8), (0, 0))[
        2:11, :12
    ]
    written[bottom - 9 : bottom, right - 12 : right] = 255
    cut, masked = cut_to_field(written)
    assert masked
    assert cut[:9, :12].max() == 0 and cut[-9:, -12:].max() == 0
    inside = clean[top:bottom, left:right].max(axis=2) > 40  # the surround's noise is below 9
    np.testing.assert_array_equal(cut[inside], clean[top:bottom, left:right][inside])


def test_the_embedded_cohort_keeps_its_mucosa_and_loses_its_overlay():
    from endoclip_jax.synthetic import frame as renderer

    lost, masked_frames = [], 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        pixels = renderer.render_frame(rng, lesion=None, scene="clean")
        top, left, bottom, right = field_of_view(pixels)
        cut, masked = cut_to_field(pixels)
        masked_frames += masked
        before = pixels[top:bottom, left:right].max(axis=2) > 60
        lost.append((before & (cut.max(axis=2) == 0)).mean())
        assert not looks_like_text(cut)
    assert max(lost) < 0.01 and masked_frames < 6


def test_writing_on_the_picture_is_noticed():
    from endoclip_jax.synthetic import frame as renderer

    for seed in range(8):
        rng = np.random.default_rng(seed)
        pixels = renderer.render_frame(rng, lesion=None, scene="clean")
        field, _ = cut_to_field(pixels)
        written = text_on(np.ascontiguousarray(field), (20, 90))
        assert not looks_like_text(field) and looks_like_text(written)
        assert stored_image(image_bytes(written, "PNG")).has_text


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_its_exif_says(format, orientation):
    pixels = np.zeros((48, 80, 3), np.uint8)
    pixels[:24, :40], pixels[:24, 40:], pixels[24:, :40] = (220, 30, 30), (30, 220, 30), (30, 30, 9)
    exif = Image.Exif()
    exif[0x0112] = orientation
    raw = image_bytes(pixels, format, exif=exif)
    with Image.open(io.BytesIO(raw)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    decoded = decode_image(raw)
    assert decoded.shape == expected.shape
    assert np.abs(decoded.astype(int) - expected).mean() < 4
    if orientation == 6:  # the camera lay on its side
        assert decoded.shape == (80, 48, 3) and decoded[5, 43].argmax() == 0


def test_a_spoilt_exif_block_turns_nothing():
    raw = bytearray(image_bytes(np.full((40, 64, 3), 90, np.uint8), "JPEG", exif=_turned(6)))
    start = raw.index(b"Exif\0\0") + 6
    raw[start : start + 12] = b"\xff" * 12
    assert decode_image(bytes(raw)).shape == (40, 64, 3)


def _turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def test_several_pictures_and_more_than_eight_bits_are_refused():
    page = Image.fromarray(np.full((40, 64, 3), 90, np.uint8))
    buffer = io.BytesIO()
    page.save(buffer, "TIFF", save_all=True, append_images=[page])
    with pytest.raises(FrameError, match="several pictures"):
        decode_image(buffer.getvalue())
    deep = io.BytesIO()
    Image.fromarray(np.full((40, 64), 9000, np.uint16)).save(deep, "PNG")
    with pytest.raises(FrameError, match="more than 8 bits"):
        decode_image(deep.getvalue())


def test_the_perceptual_hash_knows_a_copy_from_another_picture():
    from endoclip_jax.synthetic import frame as renderer

    hashes = []
    for seed in range(10):
        pixels = renderer.render_frame(np.random.default_rng(seed), lesion=None, scene="clean")
        field, _ = cut_to_field(pixels)
        first = perceptual_hash(field)
        again = decode_image(image_bytes(np.ascontiguousarray(field), "JPEG", quality=60))
        brighter = np.clip(field * 1.1 + 4, 0, 255).astype(np.uint8)
        for copy in (again, brighter):
            assert np.count_nonzero(perceptual_hash(copy) ^ first) <= 8
        hashes.append(first)
    apart = [np.count_nonzero(a ^ b) for i, a in enumerate(hashes) for b in hashes[:i]]
    assert min(apart) > 24


@given(height=st.integers(1, 24), width=st.integers(1, 24), seed=st.integers(0, 999))
@settings(max_examples=60, deadline=None)
def test_regions_are_those_of_scipy(height, width, seed):
    mask = np.random.default_rng(seed).random((height, width)) < 0.55
    regions, areas = field_module._regions(mask)
    expected, number = ndimage.label(mask)
    assert len(areas) == number + 1
    pairs = set(zip(regions.ravel().tolist(), expected.ravel().tolist(), strict=True))
    assert len(pairs) == len(np.unique(expected))
    assert areas.tolist() == np.bincount(regions.ravel(), minlength=number + 1).tolist()


@given(height=st.integers(40, 70), width=st.integers(40, 90), seed=st.integers(0, 999))
@settings(max_examples=10, deadline=None)
def test_strokes_are_counted_as_pixel_by_pixel(height, width, seed):
    rng = np.random.default_rng(seed)
    pixels = rng.choice(np.array([20, 60, 90, 230], np.uint8), (height, width, 3))
    blue = pixels[:, :, 2].astype(int)
    stroke = np.zeros((height, width), bool)
    for x in range(3, width - 3):
        stroke[:, x] = blue[:, x] - blue[:, x - 3 : x + 4].min(axis=1) > 60
    begins = np.array([[stroke[y, x + 4] and not stroke[y, x + 3] for x in range(width - 7)]
                       for y in range(height)])  # fmt: skip
    windows = range(0, width - 7 - 20, 20)
    expected = np.stack([begins[:, x : x + 40].sum(axis=1) for x in windows], axis=1)
    counts = overlay._counts(overlay._stroke_begins(pixels), width - 7)
    np.testing.assert_array_equal(counts, expected)


def test_a_line_of_writing_is_found_as_row_by_row():
    rng, found = np.random.default_rng(0), []
    for _ in range(400):
        height = int(rng.integers(8, 40))
        rows = np.repeat(rng.choice([0, 1, 3, 5, 9], height), rng.integers(1, 8, height))[:height]
        counts = np.stack([rows, np.zeros(height)], axis=1).astype(np.float32)
        expected, stop = False, 0
        while stop < height:
            first = stop
            while stop < height and counts[stop, 0] >= 5:
                stop += 1
            above, below = counts[max(first - 3, 0) : first, 0], counts[stop : stop + 3, 0]
            clear = all(len(side) == 0 or side.min() <= 1 for side in (above, below))
            expected |= 4 <= stop - first <= 18 and clear
            stop += 1
        assert overlay._has_line(counts) == expected
        found.append(expected)
    assert 20 < sum(found) < 380


@given(seed=st.integers(0, 999))
@settings(max_examples=20, deadline=None)
def test_what_lies_beside_the_outline_is_searched_and_blackened_as_pixel_by_pixel(seed):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)
    top, left, bottom, right = 1, int(rng.integers(3)), int(rng.integers(5, 10)), 9 + seed % 4
    starts = rng.integers(0, 4, bottom - top)
    stops = right - left - rng.integers(0, 4, bottom - top)
    expected, brightest = pixels[top:bottom, left:right].copy(), 0
    for y, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        for x in [*range(start), *range(stop, right - left)]:
            brightest = max(brightest, int(expected[y, x].max()))
            expected[y, x] = 0
    cut = np.ascontiguousarray(pixels[top:bottom, left:right])
    assert field_module._brightest_beside(cut, starts, stops) == brightest
    np.testing.assert_array_equal(field_module._blackened(cut, starts, stops), expected)
