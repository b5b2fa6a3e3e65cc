"""The renderer: deterministic, in the field's statistics, and with a border that tells nothing."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from endoclip_jax.records.attributes import BIT_NAMES
from endoclip_jax.synthetic.display import HEIGHT, WIDTH, sample_display
from endoclip_jax.synthetic.frame import SCENES, render_frame, sample_scene
from endoclip_jax.synthetic.lesion import lesion_diameter
from endoclip_jax.synthetic.sampling import Lesion, sample_lesion
from endoclip_jax.synthetic.textures import SIZE, atlas, lookup, lookup_smooth

# Section 4.3 of the domain notes (EndoKED's normalisation constants).
WITH_BORDER = (np.array([0.315, 0.205, 0.136]), np.array([0.307, 0.216, 0.152]))
CROPPED = (np.array([0.474, 0.298, 0.189]), np.array([0.277, 0.209, 0.161]))


def display_of(seed: int | list[int]):
    """The display that `render_frame(default_rng(seed))` will draw."""
    first = np.random.default_rng(seed).integers(0, 2**63, 2)[0]
    return sample_display(np.random.default_rng(first))


def field_box(display) -> tuple[slice, slice]:
    width, height = display.mask.size
    return (slice(display.top, display.top + height), slice(display.left, display.left + width))


def make_lesion(form: str, size_mm: float, *names: str, lst_type: str | None = None) -> Lesion:
    bits = np.array([name in names for name in BIT_NAMES], np.uint8)
    return Lesion(
        bits=bits, vienna=3, size_mm=size_mm, form=form, lst_type=lst_type, location="sigmoid"
    )


def draw(seed: int | list[int], lesion: Lesion | None, **options) -> np.ndarray:
    return render_frame(
        np.random.default_rng(seed), lesion=lesion, scene=options.pop("scene", "clean"), **options
    )


@pytest.fixture(scope="module")
def cohort_frames() -> list[tuple[np.ndarray, tuple[slice, slice], bool]]:
    """Frames in a cohort's proportions: pixels, box of the field, is a lesion in it."""
    rng = np.random.default_rng(7)
    frames = []
    for index in range(240):
        positive = rng.random() < 0.446
        has_lesion = positive and rng.random() < 0.21
        frames.append(
            (
                draw(
                    [7, index],
                    sample_lesion(rng) if has_lesion else None,
                    scene=sample_scene(rng, positive, has_lesion),
                    imaging="nbi" if rng.random() < (0.15 if has_lesion else 0.02) else "wli",
                ),
                field_box(display_of([7, index])),
                has_lesion,
            )
        )
    return frames


@pytest.mark.parametrize("imaging", ["wli", "nbi"])
@pytest.mark.parametrize("scene", SCENES)
def test_every_scene_is_drawn_and_repeatable(scene: str, imaging: str) -> None:
    lesion = sample_lesion(np.random.default_rng(3))
    once = draw(11, lesion, scene=scene, imaging=imaging)
    assert once.shape == (HEIGHT, WIDTH, 3) and once.dtype == np.uint8
    assert np.array_equal(once, draw(11, lesion, scene=scene, imaging=imaging))
    assert not np.array_equal(once, draw(12, lesion, scene=scene, imaging=imaging))


def test_one_generator_gives_different_frames() -> None:
    rng = np.random.default_rng(0)
    first, second = (render_frame(rng, lesion=None, scene="clean") for _ in range(2))
    assert not np.array_equal(first, second)


def test_unknown_scene_or_imaging_is_refused() -> None:
    with pytest.raises(ValueError, match="scene"):
        draw(0, None, scene="stomach")
    with pytest.raises(ValueError, match="imaging"):
        draw(0, None, imaging="xray")


@pytest.mark.parametrize("form", ["Is", "Isp", "Ip", "IIa", "IIb", "IIc", "LST", "mass"])
def test_lesion_is_visible_in_every_form(form: str) -> None:
    """The same frame with and without the lesion differs where, and as much as, it should."""
    gaps = []
    for seed in range(6):
        lesion = make_lesion(form, 12.0, "colour.red_hyperaemic", "margin.clear", "surface.smooth")
        height, width = (side.stop - side.start for side in field_box(display_of(seed)))
        with_it = draw(seed, lesion, indicative=True)[field_box(display_of(seed))]
        disc = np.asarray(Image.fromarray(with_it).resize((64, 64)), float)
        centre, rim = disc[24:40, 24:40].mean((0, 1)), disc[[8, 55]].mean((0, 1))
        gaps.append(centre[0] / centre[1] - rim[0] / rim[1])
        assert height >= 0.74 * HEIGHT and width >= height
    assert np.mean(gaps) > 0.15  # redder than what surrounds it


def test_colour_bits_shift_the_colour() -> None:
    def greenness(name: str) -> float:
        values = []
        for seed in range(6):
            lesion = make_lesion("Is", 15.0, name, "margin.clear", "surface.smooth")
            field = draw(seed, lesion, indicative=True)[field_box(display_of(seed))]
            height, width = field.shape[:2]
            middle = field[height // 2 - 20 : height // 2 + 20, width // 2 - 20 : width // 2 + 20]
            values.append(middle[..., 1].mean() / middle[..., 0].mean())
        return float(np.mean(values))

    red, same, pale = (
        greenness(f"colour.{name}") for name in ("red_hyperaemic", "same_as_mucosa", "pale_whitish")
    )
    assert red + 0.05 < same < pale - 0.05


def test_narrow_band_turns_neoplastic_patterns_brown_only() -> None:
    def redness(pattern: str) -> float:
        values = []
        for seed in range(6):
            lesion = make_lesion("IIa", 15.0, f"microstructure.{pattern}", "margin.clear")
            field = draw(seed, lesion, indicative=True, imaging="nbi")[field_box(display_of(seed))]
            height, width = field.shape[:2]
            middle = field[height // 2 - 20 : height // 2 + 20, width // 2 - 20 : width // 2 + 20]
            values.append(middle[..., 0].mean() / middle[..., 2].mean())
        return float(np.mean(values))

    assert redness("regular_neoplastic_pattern") > 1.25 * redness("nonneoplastic_pattern")


def test_pixels_depend_on_the_visible_attributes_only() -> None:
    lesion = make_lesion("Is", 8.0, "colour.pale_whitish", "surface.smooth")
    other = Lesion(
        bits=lesion.bits, vienna=5, size_mm=8.0, form="Is", lst_type=None, location="rectum"
    )
    assert np.array_equal(draw(5, lesion), draw(5, other))


def test_size_follows_millimetres_within_the_notes_bands() -> None:
    rng = np.random.default_rng(0)

    def area(size_mm: float) -> np.ndarray:
        diameters = np.array([lesion_diameter(rng, size_mm, 276.0, False) for _ in range(400)])
        return np.pi / 4 * diameters**2 / (0.9 * 276 * 230)

    tiny, small, large, giant = (area(mm) for mm in (4.0, 8.0, 15.0, 35.0))
    assert tiny.min() > 0.01 and tiny.max() < 0.075
    assert tiny.mean() < small.mean() < large.mean() < giant.mean()
    assert giant.min() > 0.08 and np.median(giant) > 0.20 and giant.max() < 0.60


def test_layout_is_within_the_screen_and_free_of_content() -> None:
    lesion = sample_lesion(np.random.default_rng(1))
    for seed in range(12):
        display = display_of(seed)
        rows, columns = field_box(display)
        assert rows.start >= 0 and rows.stop <= HEIGHT and columns.stop <= WIDTH
        assert 0.70 <= (rows.stop - rows.start) / HEIGHT <= 0.86
        assert (columns.start + columns.stop) / 2 > WIDTH / 2
        outside = np.ones((HEIGHT, WIDTH), bool)
        outside[rows, columns] = np.asarray(display.mask) == 0
        plain, other = draw(seed, None), draw(seed, lesion, scene="stool", imaging="nbi")
        assert np.array_equal(plain[outside], other[outside])
        assert np.array_equal(plain[outside], np.asarray(display.screen)[outside])
        assert not np.array_equal(plain, other)


def test_border_classifier_is_at_chance() -> None:
    """Logistic regression on border pixels, with the field's inside hidden as far as it varies."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import cross_val_predict

    rng = np.random.default_rng(5)
    features, labels = [], []
    for index in range(240):
        has_lesion = index % 2 == 0
        imaging = "nbi" if rng.random() < (0.5 if has_lesion else 0.0) else "wli"
        frame = draw(
            [5, index],
            sample_lesion(rng) if has_lesion else None,
            imaging=imaging,
            scene=sample_scene(rng, True, has_lesion),
        )
        display = display_of([5, index])
        frame[field_box(display)] *= (np.asarray(display.mask) == 0)[..., None].astype(np.uint8)
        grey = Image.fromarray(frame).convert("L").resize((45, 36))
        features.append(np.asarray(grey, float).ravel() / 255)
        labels.append(has_lesion)
    model = LogisticRegression(C=0.01, max_iter=300)
    scores = cross_val_predict(
        model, np.array(features), np.array(labels), cv=5, method="decision_function"
    )
    assert 0.4 <= roc_auc_score(labels, scores) <= 0.6


def test_colours_are_those_of_real_colonoscopy(cohort_frames) -> None:
    whole = np.stack([frame[::3, ::3] for frame, _, _ in cohort_frames]).reshape(-1, 3) / 255.0
    cropped = (
        np.concatenate([frame[box][::3, ::3].reshape(-1, 3) for frame, box, _ in cohort_frames])
        / 255.0
    )
    for pixels, (mean, deviation) in ((whole, WITH_BORDER), (cropped, CROPPED)):
        np.testing.assert_allclose(pixels.mean(0), mean, rtol=0.15)
        np.testing.assert_allclose(pixels.std(0), deviation, rtol=0.15)


def test_scene_shares() -> None:
    rng = np.random.default_rng(0)
    negative = [sample_scene(rng, False, False) for _ in range(2000)]
    positive = [sample_scene(rng, True, False) for _ in range(2000)]
    with_lesion = [sample_scene(rng, True, True) for _ in range(2000)]
    assert {*negative, *positive, *with_lesion} == set(SCENES)
    for names in (negative, positive):
        assert 0.41 < names.count("clean") / 2000 < 0.49
    assert not {"snare", "bleeding_wound", "emr_wound", "clips"} & set(negative)
    assert not {"blur", "red_out", "emr_wound"} & set(with_lesion)


def test_atlases_wrap_around_and_interpolate() -> None:
    field = atlas("ripple")
    assert field.shape == (SIZE, SIZE) and field.dtype == np.float32
    u, v = np.array([[3.0, SIZE + 3.0]], np.float32), np.array([[5.0, 5.0]], np.float32)
    assert np.array_equal(lookup(("ripple",), u, v)[0], np.full((1, 2), field[5, 3]))
    halfway = lookup_smooth("ripple", u + np.float32(0.5), v)
    np.testing.assert_allclose(halfway, (field[5, 3] + field[5, 4]) / 2, rtol=1e-5)
