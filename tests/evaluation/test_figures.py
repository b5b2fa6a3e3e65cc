"""Figures say what the arrays say: texts, marks and lines are read back from the artists."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from endoclip_jax.evaluation import figures, statistics
from endoclip_jax.evaluation.calibration import reliability


@pytest.fixture(scope="module")
def frames():
    return np.random.default_rng(0).integers(0, 255, (7, 20, 20, 3), dtype=np.uint8)


def texts(figure):
    from matplotlib.text import Text

    return [t.get_text() for t in figure.findobj(Text) if t.get_text()]


def test_files_are_png_and_svg_and_the_same_every_time(tmp_path):
    def draw():
        rng = np.random.default_rng(1)
        return figures.roc_pr_curves({"a": rng.normal(size=30)}, np.arange(30) % 3 == 0)

    png, svg = figures.save(draw(), tmp_path / "new" / "roc")
    assert png.read_bytes() == figures.png_bytes(draw())
    assert png.read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in svg.read_bytes()
    again = figures.save(draw(), tmp_path / "again")[1]
    assert again.read_bytes() == svg.read_bytes()


def test_sheet_counts_and_marks_polyps(frames):
    figure = figures.frame_sheet(
        frames[:4], np.array([0.9, 0.5, 0.2, 0.1]), np.array([0, -1, 2, -2]),
        frames[4:], np.array([0.0, -0.1, -0.25]), np.array([-1, -1, -1]),
    )  # fmt: skip
    found = texts(figure)
    assert "Kept: 2 of these 3 show a polyp" in found
    assert "Dropped: 0 of these 3 show a polyp" in found
    assert "+0.90  ● polyp" in found and "+0.10  truth unknown" in found
    assert "-0.25  no polyp" in found
    assert figures.jpeg_bytes(figure).startswith(b"\xff\xd8")


def test_attention_map_writes_every_weight_at_its_place(frames):
    weights = np.array([[0.9, 0.1], [0.25, 0.75], [0.5, 0.5]])
    sentences = ["A 7 mm sessile polyp with a smooth reddish surface.", "Second <one>."]
    figure = figures.attention_map(frames[:3], sentences, weights, image_polyp=np.array([0, 1, -1]))
    figure.draw_without_rendering()
    cells = {}
    for axis in figure.axes:
        for text in axis.texts:
            if text.get_text()[:2] in ("0.", "1."):
                x, y = axis.transAxes.transform((0.5, 0.5))
                cells[round(x), round(-y)] = float(text.get_text())
    rows = sorted({y for _, y in cells})
    grid = [[cells[key] for key in sorted(cells) if key[1] == y] for y in rows]
    np.testing.assert_allclose(np.array(grid).T, weights)
    assert {"polyp 1", "polyp 2", "no polyp"} <= set(texts(figure))


def test_histograms_hold_all_frames_of_each_class():
    rng = np.random.default_rng(2)
    polyp = np.arange(50) % 5 == 0
    scores = {"round 1": rng.normal(size=50), "round 2": rng.normal(size=50) + 2 * polyp}
    figure = figures.score_histograms(scores, dict.fromkeys(scores, polyp))
    expected = statistics.auroc(scores["round 2"], polyp)
    assert f"round 2, AUROC {expected:.3f}" in texts(figure)
    for axis in figure.axes:
        for outline in axis.patches:
            x, y = outline.get_xy()[:-1].T
            width = x.max() - x.min()
            assert np.abs(np.trapezoid(y, x)) == pytest.approx(100 * width / 40, rel=1e-6)


def test_training_curve_floor_is_loss_minus_excess():
    rows = [{"step": s, "loss": 3.0 + 1 / s, "excess": 1 / s} for s in range(1, 20)]
    rows += [{"step": 10, "loss": 3.5, "excess": 0.5, "split": "validation"}, {"seconds": 3.0}]
    rows += [{"step": 11, "loss": float("nan")}]
    figure = figures.training_curves({"Stage 2": rows, "Stage 3": []})
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    np.testing.assert_allclose(lines["floor (target entropy)"].get_ydata(), 3.0)
    np.testing.assert_allclose(lines["validation floor"].get_ydata(), 3.0)
    np.testing.assert_allclose(lines["validation loss"].get_xydata(), [[10, 3.5]])
    assert len(lines["training loss (smoothed)"].get_xdata()) == 19


def test_smoothing_keeps_a_constant_and_its_length():
    for length in (1, 5, 59, 60, 200):
        np.testing.assert_allclose(figures.scores._smooth(np.full(length, 2.5)), 2.5)


def test_tsne_shows_every_point_once_and_is_seeded():
    rng = np.random.default_rng(3)
    malignant = np.arange(40) % 4 > 0
    features = rng.normal(size=(40, 8)) + 4 * malignant[:, None]
    figure = figures.tsne_scatter({"CLIP": features, "Endo-CLIP": -features}, malignant, seed=0)
    for axis in figure.axes:
        triangles, circles = axis.collections
        assert (len(triangles.get_offsets()), len(circles.get_offsets())) == (30, 10)
        assert len(triangles.get_paths()[0]) != len(circles.get_paths()[0])  # shape, not only hue
    legend = figure.legends[0]
    assert [t.get_text() for t in legend.get_texts()] == [
        "malignant (Vienna 3, 4, 5), n = 30",
        "benign (Vienna 1), n = 10",
    ]
    again = figures.tsne(features, seed=0)
    np.testing.assert_array_equal(again, figures.tsne(features, seed=0))


def test_curves_show_chance_at_the_share_of_positives():
    labels = np.arange(40) % 4 == 0
    figure = figures.roc_pr_curves({"a": np.arange(40.0)}, labels)
    _, pr = figure.axes
    assert pr.lines[-1].get_ydata()[0] == pytest.approx(0.25)


def test_heavy_packages_wait_until_a_figure_is_drawn():
    code = (
        "import sys, endoclip_jax.evaluation.figures, endoclip_jax.evaluation.report, "
        "endoclip_jax.evaluation.few_shot\n"
        "print([m for m in ('matplotlib', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_reliability_draws_every_bin_of_every_setting():
    rng = np.random.default_rng(3)
    p = rng.random(400)
    curves = {
        "as trained": reliability(p, rng.random(400) < p),
        "Platt": reliability(p**2, p > 0.5),
    }
    figure = figures.reliability_curves(curves)
    (axis,) = figure.axes
    lines = {line.get_label(): line for line in axis.lines}
    for name, curve in curves.items():
        np.testing.assert_array_equal(lines[name].get_xdata(), curve.predicted)
        np.testing.assert_array_equal(lines[name].get_ydata(), curve.observed)
    styles = {(lines[name].get_linestyle(), lines[name].get_marker()) for name in curves}
    assert len(styles) == 2  # not told apart by colour alone
    figure.draw_without_rendering()


def test_attributes_colour_the_same_points_in_every_panel():
    features = np.random.default_rng(4).normal(size=(40, 5)).astype(np.float32)
    size = ["small"] * 15 + ["large"] * 10 + [""] * 15
    many = [f"value {n % 9}" for n in range(40)]
    figure = figures.attribute_scatter(features, {"size": size, "many": many}, seed=0)
    places = figures.tsne(features, seed=0)
    for axis, values in zip(figure.axes, (size, many), strict=True):
        drawn = np.concatenate([c.get_offsets() for c in axis.collections])
        np.testing.assert_allclose(np.sort(drawn, axis=0), np.sort(places, axis=0), rtol=1e-5)
        labelled = {c.get_label(): len(c.get_offsets()) for c in axis.collections}
        assert labelled[f"{values[0]}, n = {values.count(values[0])}"] == values.count(values[0])
    assert labelled["others"] == many.count("value 7") + many.count("value 8")


def test_four_models_stand_side_by_side():
    """The paper's Figure 3: the same points by four models, the classes told apart by marks."""
    rng = np.random.default_rng(5)
    models = {name: rng.normal(size=(24, 4)) for name in ("DINO", "SSCD", "CLIP", "Endo-CLIP")}
    malignant = np.arange(24) % 3 > 0
    figure = figures.tsne_scatter(models, malignant, seed=0)
    assert [axis.get_title(loc="left") for axis in figure.axes] == list(models)
    for axis in figure.axes:
        found = {c.get_label(): len(c.get_offsets()) for c in axis.collections}
        assert found == {
            "benign (Vienna 1), n = 8": 8,
            "malignant (Vienna 3, 4, 5), n = 16": 16,
        }
