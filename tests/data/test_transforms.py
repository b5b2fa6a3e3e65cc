from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
import pytest
import simplejpeg
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from endoclip_jax.data import transforms
from endoclip_jax.data.transforms import UndecodableFrame


def smooth(rng, height, width):
    """A frame of soft blotches, like tissue."""
    low = rng.integers(20, 235, (7, 9, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(low).resize((width, height), Image.Resampling.BICUBIC))


def jpeg_of(pixels, quality=95):
    return simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality)


def cubic(x):
    """Keys' kernel with a = -0.5, as Pillow has it."""
    x = abs(x)
    if x < 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    if x < 2:
        return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return 0.0


def resize_oracle(pixels, size):
    """Antialiased bicubic by loops in float64, rounded to bytes between the two passes."""

    def one_axis(rows):
        length = len(rows)
        scale = length / size
        stretch = max(scale, 1)
        out = np.zeros((size, *rows.shape[1:]))
        for i in range(size):
            centre = (i + 0.5) * scale
            start = max(0, int(centre - 2 * stretch + 0.5))
            stop = min(length, int(centre + 2 * stretch + 0.5))
            weights = np.array([cubic((j - centre + 0.5) / stretch) for j in range(start, stop)])
            out[i] = np.tensordot(weights / weights.sum(), rows[start:stop], axes=1)
        return np.clip(np.floor(out + 0.5), 0, 255)

    across = one_axis(pixels.astype(np.float64).swapaxes(0, 1)).swapaxes(0, 1)
    return one_axis(across)


@pytest.mark.parametrize(("height", "width", "size"), [(90, 72, 32), (20, 33, 32), (64, 64, 64)])
def test_resize_is_antialiased_bicubic(height, width, size):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    difference = transforms.resize(pixels, size) - resize_oracle(pixels, size)
    assert np.abs(difference).max() <= 1
    assert np.abs(difference).mean() < 0.01


def test_resize_golden():
    """Bytes of one resized ramp: another Pillow, or another filter, shows here."""
    rows, columns = np.mgrid[0:12, 0:10]
    pixels = np.stack([rows * 21, columns * 25, (rows * columns * 7) % 256], -1).astype(np.uint8)
    golden = [[[33, 31, 13], [33, 112, 53], [33, 194, 95]],
              [[116, 31, 51], [116, 112, 154], [116, 194, 148]],
              [[198, 31, 90], [198, 112, 142], [198, 194, 139]]]  # fmt: skip
    np.testing.assert_array_equal(transforms.resize(pixels, 3), golden)


@given(
    height=st.integers(32, 300), width=st.integers(32, 300), size=st.integers(2, 300),
    wider=st.integers(0, 9),
)  # fmt: skip
def test_decoding_reduces_as_far_as_the_model_allows(height, width, size, wider):
    jpeg = jpeg_of(np.full((height, width, 3), 90, np.uint8))
    canvas = np.full((height, width + wider, 3), 7, np.uint8)
    sides = transforms.decode_onto(canvas, jpeg, size)
    assert sides == transforms.reduced_sides(height, width, size)
    shapes = {(math.ceil(height / f), math.ceil(width / f)): f for f in (1, 2, 4, 8)}
    factor, least = shapes[sides], math.ceil(0.75 * size)
    assert factor == 1 or min(height, width) >= factor * least
    assert factor == 8 or min(height, width) < 2 * factor * least
    assert np.abs(canvas[: sides[0], : sides[1]].astype(int) - 90).max() <= 2
    assert (canvas[sides[0] :] == 7).all() and (canvas[:, sides[1] :] == 7).all()


def test_decode_names_what_is_no_jpeg():
    whole = jpeg_of(smooth(np.random.default_rng(1), 80, 80))
    for broken in (b"", b"GIF89a", whole[:40], whole[: len(whole) // 2]):
        with pytest.raises(UndecodableFrame):
            transforms.decode(broken)
        canvas = np.full((80, 80, 3), 9, np.uint8)
        with pytest.raises(UndecodableFrame):
            transforms.decode_onto(canvas, broken, 64)
        assert not canvas.any()


def test_a_frame_larger_than_its_canvas_is_refused():
    jpeg = jpeg_of(smooth(np.random.default_rng(1), 80, 60))
    for sides in ((79, 60), (80, 59)):
        with pytest.raises(UndecodableFrame, match="80 x 60 pixels are more than the index says"):
            transforms.decode_onto(np.zeros((*sides, 3), np.uint8), jpeg, 64)


def test_eval_image_is_the_resize_of_the_whole_frame():
    jpeg = jpeg_of(smooth(np.random.default_rng(2), 150, 120))
    image = transforms.eval_image(jpeg, 48)
    expected = transforms.resize(simplejpeg.decode_jpeg(jpeg), 48)
    np.testing.assert_array_equal(image, expected)
    assert image.dtype == np.uint8 and image.shape == (48, 48, 3)


def test_reduced_decoding_stays_near_the_whole():
    rng = np.random.default_rng(4)
    for height, width, size in ((128, 128, 64), (410, 512, 224), (232, 268, 224)):
        jpeg = jpeg_of(smooth(rng, height, width))
        canvas = np.zeros((height, width, 3), np.uint8)
        high, wide = transforms.decode_onto(canvas, jpeg, size)
        assert (high * 2 == height) == (size != 224 or height > 400)
        whole = transforms.resize(transforms.decode(jpeg), size).astype(int)
        reduced = np.ascontiguousarray(canvas[:high, :wide])
        assert np.abs(transforms.resize(reduced, size) - whole).mean() < 1


def test_normalize_against_numpy():
    images = np.random.default_rng(5).integers(0, 256, (2, 3, 4, 4, 3), dtype=np.uint8)
    expected = (images / 255.0 - np.array(transforms.CLIP_MEAN)) / np.array(transforms.CLIP_STD)
    result = np.asarray(transforms.normalize(jnp.asarray(images)))
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, atol=2e-6)
