"""What is drawn on the host, and what the device makes of it: beside Pillow, loops and colorsys."""

from __future__ import annotations

import colorsys
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from endoclip_jax.data import augmentation
from endoclip_jax.data.augmentation import DRAWS, augment, augmented, draw_augmentation
from endoclip_jax.training.sharding import data_mesh, over_data, row_by_row, shard_batch

MIDDLE = 0.5
UNCHANGED = (1.0, 1.0, 1.0, 0.0)  # brightness, contrast, saturation, angle


def smooth(rng, height, width):
    """A frame of soft blotches, like tissue."""
    low = rng.integers(20, 235, (7, 9, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(low).resize((width, height), Image.Resampling.BICUBIC))


def on_canvas(frame, height, width, beyond=0):
    canvas = np.full((height, width, 3), beyond, np.uint8)
    canvas[: frame.shape[0], : frame.shape[1]] = frame
    return canvas


def seen(canvas, numbers, size):
    (image,) = np.asarray(augment(canvas[None], np.array([numbers], np.float32), size))
    return image.astype(int)


def drawn(*draws):
    return np.array(draws, float)


FRAMES = [(90, 72, 32), (20, 33, 32), (64, 64, 64), (61, 100, 48)]


@pytest.mark.parametrize(("height", "width", "size"), FRAMES)
@pytest.mark.parametrize("kind", ["noise", "smooth"])
def test_crop_is_pillows_resize_of_a_box(height, width, size, kind):
    """With mirrors, and whatever lies on the canvas beyond the frame."""
    rng = np.random.default_rng(height)
    noise = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    frame = noise if kind == "noise" else smooth(rng, height, width)
    canvas = on_canvas(frame, height + 7, width + 12, beyond=255)
    top, left, bottom, right = 3.3, 0.0, height - 1.7, width - 4.25
    pillow = Image.fromarray(frame).resize(
        (size, size), Image.Resampling.BICUBIC, box=(left, top, right, bottom)
    )
    expected = np.asarray(pillow).astype(int)
    sides = (height, width, top, left)
    plain = seen(canvas, (*sides, bottom - top, right - left, *UNCHANGED), size)
    assert np.abs(plain - expected).max() <= 1
    assert np.abs(plain - expected).mean() < 0.3  # Pillow rounds between the passes
    upside = (height, width, bottom, left, top - bottom, right - left, *UNCHANGED)
    assert np.abs(seen(canvas, upside, size) - expected[::-1]).max() <= 1
    mirrored = (height, width, top, right, bottom - top, left - right, *UNCHANGED)
    assert np.abs(seen(canvas, mirrored, size) - expected[:, ::-1]).max() <= 1


def cubic(x):
    """Keys' kernel with a = -0.5."""
    x = abs(x)
    if x < 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def resized_axis(rows, start, span, size):
    """One axis by loops in float64, clipped, nothing rounded."""
    scale = span / size
    stretch = max(abs(scale), 1)
    out = np.zeros((size, *rows.shape[1:]))
    for i in range(size):
        centre = start + (i + 0.5) * scale
        weights = np.array([cubic((j + 0.5 - centre) / stretch) for j in range(len(rows))])
        out[i] = np.tensordot(weights / weights.sum(), rows, axes=1)
    return np.clip(out, 0, 255)


def oracle(frame, numbers, size):
    """An augmentation in float64: resize by loops, then jitter pixel by pixel."""
    _, _, top, left, high, wide, brightness, contrast, saturation, angle = numbers
    image = resized_axis(frame.astype(float).swapaxes(0, 1), left, wide, size).swapaxes(0, 1)
    image = resized_axis(image, top, high, size)
    grey = image.mean()
    turn = rotation_about_grey(angle)
    for pixel in image.reshape(-1, 3):
        mean = pixel.mean()
        chroma = saturation * turn @ (pixel - mean)
        pixel[:] = brightness * (contrast * (mean + chroma) + (1 - contrast) * grey)
    return np.clip(np.floor(image + 0.5), 0, 255)


def rotation_about_grey(angle):
    """Rodrigues' formula."""
    axis = np.ones(3) / math.sqrt(3)
    cross = np.cross(np.eye(3), axis)
    return np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross


def test_everything_together_equals_the_oracle():
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in ((40, 31), (23, 44))]
    numbers = [draw_augmentation(*frame.shape[:2], rng.random(DRAWS)) for frame in frames]
    canvases = np.stack([on_canvas(frame, 40, 44) for frame in frames])
    images = np.asarray(augment(canvases, np.array(numbers, np.float32), 24)).astype(int)
    for image, frame, own in zip(images, frames, numbers, strict=True):
        # Rounded once on each side: float32 may fall on the other side of a half.
        difference = np.abs(image - oracle(frame, own, 24))
        assert difference.max() <= 1
        assert (difference > 0).mean() < 0.01


def identity_draws():
    """Numbers that change nothing but take the largest crop, which is the whole frame."""
    return drawn(1 - 1e-12, MIDDLE, 0, 0, *[MIDDLE] * 4, 1, 1)


def test_a_middling_draw_is_the_evaluations_view():
    frame = smooth(np.random.default_rng(1), 50, 70)
    numbers = draw_augmentation(50, 70, identity_draws())
    expected = np.asarray(Image.fromarray(frame).resize((32, 32), Image.Resampling.BICUBIC))
    assert np.abs(seen(frame, numbers, 32) - expected).max() <= 1


def test_nothing_drawn_is_black_and_finite():
    canvas = np.full((2, 3, 20, 30, 3), 200, np.uint8)
    nothing = np.zeros((2, 3, DRAWS), np.float32)
    image = np.asarray(augment(canvas, nothing, 8))
    assert image.shape == (2, 3, 8, 8, 3) and image.dtype == np.uint8
    assert not image.any()


def test_only_batches_with_an_augmentation_are_touched():
    rng = np.random.default_rng(2)
    image = rng.integers(0, 256, (2, 9, 9, 3), dtype=np.uint8)
    plain = {"image": jnp.asarray(image), "valid": jnp.ones(2, bool)}
    assert augmented(plain, 9) is plain
    numbers = jnp.array([draw_augmentation(9, 9, rng.random(DRAWS)) for _ in range(2)])
    result = augmented({**plain, "augmentation": numbers}, 6)
    assert result.keys() == plain.keys() and result["image"].shape == (2, 6, 6, 3)


def test_rows_stay_on_their_devices_and_keep_their_numbers():
    """The same bytes on one device and on eight, and nothing sent between them."""
    rng = np.random.default_rng(3)
    canvases = rng.integers(0, 256, (16, 20, 24, 3), dtype=np.uint8)
    numbers = np.array(
        [draw_augmentation(20, 24, rng.random(DRAWS)) for _ in range(16)], np.float32
    )
    alone = np.asarray(augment(canvases, numbers, 16))
    mesh = data_mesh()
    on_device = row_by_row(functools.partial(augmented, size=16), mesh)
    batch = {"image": canvases, "augmentation": numbers, "valid": np.ones(16, bool)}
    placed = shard_batch(batch, mesh)
    program = on_device.lower(placed).compile().as_text()
    assert not any(word in program for word in ("all-gather", "all-reduce", "collective-permute"))
    spread = on_device(placed)["image"]
    assert spread.sharding.is_equivalent_to(over_data(mesh), spread.ndim)
    np.testing.assert_array_equal(np.asarray(spread), alone)


def test_a_batched_program_gives_the_same_bytes():
    """What accelerators run, by the processor's arithmetic."""
    rng = np.random.default_rng(4)
    canvases = rng.integers(0, 256, (5, 30, 22, 3), dtype=np.uint8)
    numbers = np.array([draw_augmentation(30, 22, rng.random(DRAWS)) for _ in range(5)], np.float32)
    batched = jax.jit(jax.vmap(functools.partial(augmentation._augment_one, size=16)))
    apart = np.asarray(batched(canvases, numbers)).astype(int) - augment(canvases, numbers, 16)
    assert np.abs(apart).max() <= 1 and (apart != 0).mean() < 1e-3  # sums in another order


def test_accelerators_get_the_batched_program():
    """Lowered for them, which needs none: no loop over frames, products of the whole batch."""
    shapes = (
        jax.ShapeDtypeStruct((6, 30, 22, 3), jnp.uint8), jax.ShapeDtypeStruct((6, DRAWS), float)
    )  # fmt: skip
    for platform, loops in (("cpu", True), ("cuda", False), ("tpu", False)):
        lowered = jax.export.export(augment, platforms=[platform])(*shapes, size=16)
        program = lowered.mlir_module()
        assert ("stablehlo.while" in program) == loops
        assert program.count("stablehlo.dot_general") == 2
        assert lowered.out_avals[0].shape == (6, 16, 16, 3)


def test_both_mirrors_come_half_of_the_time():
    rng = np.random.default_rng(0)
    mirrored = np.array(
        [[number < 0 for number in draw_augmentation(64, 64, rng.random(DRAWS))[4:6]]
         for _ in range(400)]
    )  # fmt: skip
    corners = np.array([[np.all(mirrored == (a, b), axis=1).sum() for b in (0, 1)] for a in (0, 1)])
    assert corners.sum() == 400
    assert (np.abs(corners - 100) < 5 * math.sqrt(400 * 0.25 * 0.75)).all()


@given(st.lists(st.floats(0, 1, exclude_max=True), min_size=DRAWS, max_size=DRAWS))
def test_crop_keeps_its_area_and_stays_inside(draws):
    height, width = 120, 90
    numbers = draw_augmentation(height, width, np.array(draws))
    assert numbers[:2] == (height, width)
    top, left, high, wide = numbers[2:6]
    (top, bottom), (left, right) = sorted((top, top + high)), sorted((left, left + wide))
    assert -1e-9 <= left < right <= width + 1e-9
    assert -1e-9 <= top < bottom <= height + 1e-9
    area = (right - left) * (bottom - top) / (height * width)
    assert area == pytest.approx(0.8 + 0.2 * draws[0], rel=1e-6)
    aspect = (right - left) / (bottom - top) * height / width
    assert 3 / 4 - 1e-6 <= aspect <= 4 / 3 + 1e-6


def jittered(colors, draws):
    """Colours as one image of a row each, after a jitter drawn from four numbers."""
    numbers = draw_augmentation(1, 1, drawn(*[MIDDLE] * 4, *draws, 1, 1))[6:]
    pixels = jnp.asarray(np.asarray(colors, np.float32).reshape(-1, 1, 3))
    out = augmentation._jittered(pixels, *map(jnp.float32, numbers))
    return np.asarray(out, np.float64).reshape(-1, 3)


@settings(max_examples=60, deadline=None)
@given(
    color=st.tuples(*[st.floats(0, 255)] * 3),
    other=st.tuples(*[st.floats(0, 255)] * 3),
    draws=st.lists(st.floats(0, 1), min_size=4, max_size=4),
)
def test_jitter_is_brightness_contrast_saturation_and_a_bounded_hue(color, other, draws):
    out = jittered([color, other], draws)[0]
    grey = np.mean([color, other])
    brightness, contrast, saturation = (1 + 0.12 * (2 * draw - 1) for draw in draws[:3])
    # The mean channel knows brightness and contrast alone; the distance from grey all but hue.
    mean = np.mean(color)
    expected_mean = brightness * (contrast * mean + (1 - contrast) * grey)
    assert np.mean(out) == pytest.approx(expected_mean, abs=2e-4)
    chroma = np.linalg.norm(out - np.mean(out))
    expected = brightness * contrast * saturation * np.linalg.norm(np.array(color) - mean)
    assert chroma == pytest.approx(expected, abs=2e-4)
    if expected > 1:
        # HSV hue does not change with an offset common to the channels.
        before = colorsys.rgb_to_hsv(*(np.array(color) / 255 + 2))[0]
        after = colorsys.rgb_to_hsv(*(out / 255 + 2))[0]
        change = abs((after - before + 0.5) % 1 - 0.5)
        assert change <= augmentation.MAX_HUE + 1e-4


def test_hue_reaches_its_bound_but_no_further():
    """Over all hues the largest change is MAX_HUE itself: the limit is used, not halved."""
    hues = np.linspace(0, 1, 4000)
    out = jittered([255 * np.array(colorsys.hsv_to_rgb(h, 0.5, 0.6)) for h in hues],
                   [0.5, 0.5, 0.5, 1.0])  # fmt: skip
    after = np.array([colorsys.rgb_to_hsv(*(color / 255))[0] for color in out])
    largest = np.abs((after - hues + 0.5) % 1 - 0.5).max()
    assert 0.95 * augmentation.MAX_HUE < largest <= augmentation.MAX_HUE + 1e-6
