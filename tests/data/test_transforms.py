from __future__ import annotations

import colorsys
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


@given(height=st.integers(32, 300), width=st.integers(32, 300), least=st.integers(1, 300))
def test_decode_reduces_only_as_far_as_asked(height, width, least):
    jpeg = jpeg_of(np.full((height, width, 3), 90, np.uint8))
    decoded = transforms.decode(jpeg, min_side=least)
    shapes = {(math.ceil(height / f), math.ceil(width / f), 3): f for f in (1, 2, 4, 8)}
    factor = shapes[decoded.shape]
    assert factor == 1 or min(height, width) >= factor * least
    assert factor == 8 or min(height, width) < 2 * factor * least
    assert np.abs(decoded.astype(int) - 90).max() <= 2


def test_decode_names_what_is_no_jpeg():
    whole = jpeg_of(smooth(np.random.default_rng(1), 80, 80))
    for broken in (b"", b"GIF89a", whole[:40], whole[: len(whole) // 2]):
        for least in (0, 32):
            with pytest.raises(UndecodableFrame):
                transforms.decode(broken, min_side=least)


def test_eval_image_is_the_resize_of_the_whole_frame():
    jpeg = jpeg_of(smooth(np.random.default_rng(2), 150, 120))
    image = transforms.eval_image(jpeg, 48)
    expected = transforms.resize(simplejpeg.decode_jpeg(jpeg), 48)
    np.testing.assert_array_equal(image, expected)
    assert image.dtype == np.uint8 and image.shape == (48, 48, 3)


def test_train_image_is_drawn_from_its_generator_alone():
    jpeg = jpeg_of(smooth(np.random.default_rng(3), 100, 120))
    one, same, other = (
        transforms.train_image(jpeg, 48, np.random.default_rng(seed)) for seed in (7, 7, 8)
    )
    assert one.dtype == np.uint8 and one.shape == (48, 48, 3)
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_train_image_mirrors_both_ways_half_of_the_time():
    """One bright quadrant ends in each corner a quarter of the time."""
    pixels = np.full((64, 64, 3), 40, np.uint8)
    pixels[:28, :28] = 200
    jpeg = jpeg_of(pixels)
    corners = np.zeros((2, 2), int)
    rng = np.random.default_rng(0)
    for _ in range(400):
        light = transforms.train_image(jpeg, 32, rng).astype(int).sum(-1)
        below = light[16:].sum() > light[:16].sum()
        right = light[:, 16:].sum() > light[:, :16].sum()
        corners[int(below), int(right)] += 1
    assert corners.sum() == 400
    assert (np.abs(corners - 100) < 5 * math.sqrt(400 * 0.25 * 0.75)).all()


@given(st.lists(st.floats(0, 1, exclude_max=True), min_size=4, max_size=4))
def test_crop_keeps_its_area_and_stays_inside(draws):
    height, width = 120, 90
    left, top, right, bottom = transforms._crop_box(height, width, np.array(draws))
    assert -1e-9 <= left < right <= width
    assert -1e-9 <= top < bottom <= height
    area = (right - left) * (bottom - top) / (height * width)
    assert area == pytest.approx(0.8 + 0.2 * draws[0], rel=1e-6)
    aspect = (right - left) / (bottom - top) * height / width
    assert 3 / 4 - 1e-6 <= aspect <= 4 / 3 + 1e-6


def jittered(color, grey, draws):
    matrix = np.array(transforms._jitter_matrix(grey, np.array(draws))).reshape(3, 4)
    return matrix[:, :3] @ color + matrix[:, 3] - 0.5


@given(
    color=st.tuples(*[st.floats(0, 255)] * 3),
    grey=st.floats(0, 255),
    draws=st.lists(st.floats(0, 1), min_size=4, max_size=4),
)
def test_jitter_is_brightness_contrast_saturation_and_a_bounded_hue(color, grey, draws):
    out = jittered(np.array(color), grey, draws)
    brightness, contrast, saturation = (1 + 0.12 * (2 * draw - 1) for draw in draws[:3])
    # The mean channel knows brightness and contrast alone; the distance from grey all but hue.
    mean = np.mean(color)
    expected_mean = brightness * (contrast * mean + (1 - contrast) * grey)
    assert np.mean(out) == pytest.approx(expected_mean, abs=1e-9)
    chroma = np.linalg.norm(out - np.mean(out))
    expected = brightness * contrast * saturation * np.linalg.norm(np.array(color) - mean)
    assert chroma == pytest.approx(expected, abs=1e-9)
    if expected > 1:
        # HSV hue does not change with an offset common to the channels.
        before = colorsys.rgb_to_hsv(*(np.array(color) / 255 + 2))[0]
        after = colorsys.rgb_to_hsv(*(out / 255 + 2))[0]
        change = abs((after - before + 0.5) % 1 - 0.5)
        assert change <= transforms.MAX_HUE + 1e-6


def test_hue_reaches_its_bound_but_no_further():
    """Over all hues the largest change is MAX_HUE itself: the limit is used, not halved."""
    largest = 0.0
    for hue in np.linspace(0, 1, 4000):
        color = 255 * np.array(colorsys.hsv_to_rgb(hue, 0.5, 0.6))
        out = jittered(color, 128.0, [0.5, 0.5, 0.5, 1.0])
        after = colorsys.rgb_to_hsv(*(out / 255))[0]
        largest = max(largest, abs((after - hue + 0.5) % 1 - 0.5))
    assert 0.95 * transforms.MAX_HUE < largest <= transforms.MAX_HUE


def test_a_middling_draw_leaves_colours_alone():
    color = np.array([200.0, 90.0, 60.0])
    np.testing.assert_allclose(jittered(color, 77.0, [0.5] * 4), color, atol=1e-9)


def test_reduced_decoding_stays_near_the_whole():
    rng = np.random.default_rng(4)
    for height, width, size in ((128, 128, 64), (410, 512, 224)):
        jpeg = jpeg_of(smooth(rng, height, width))
        reduced = transforms.decode(jpeg, min_side=math.ceil(transforms.REDUCED_SIDE * size))
        assert reduced.shape[0] * 2 == height
        whole = transforms.resize(transforms.decode(jpeg), size).astype(int)
        assert np.abs(transforms.resize(reduced, size) - whole).mean() < 1


def test_normalize_against_numpy():
    images = np.random.default_rng(5).integers(0, 256, (2, 3, 4, 4, 3), dtype=np.uint8)
    expected = (images / 255.0 - np.array(transforms.CLIP_MEAN)) / np.array(transforms.CLIP_STD)
    result = np.asarray(transforms.normalize(jnp.asarray(images)))
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, atol=2e-6)
