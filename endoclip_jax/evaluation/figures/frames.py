"""Figures made of frames: sheets of kept and dropped ones, attention over the sentences."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from endoclip_jax.evaluation.figures.style import GREY, VERMILION, WIDTH, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@styled
def frame_sheet(
    kept: UInt8[np.ndarray, "a h w 3"],
    kept_scores: Float[np.ndarray, " a"],
    kept_truth: Int[np.ndarray, " a"],
    dropped: UInt8[np.ndarray, "b h w 3"],
    dropped_scores: Float[np.ndarray, " b"],
    dropped_truth: Int[np.ndarray, " b"],
    *,
    columns: int = 6,
) -> Figure:
    """Kept frames above dropped ones, each with its score and what it truly shows.

    Truth as in the index: ≥ 0 a polyp, −1 none, −2 unknown. A solid orange frame marks a polyp.
    """
    from matplotlib.figure import Figure

    parts = (
        ("Kept", kept, kept_scores, kept_truth),
        ("Dropped", dropped, dropped_scores, dropped_truth),
    )
    rows = [max(1, -(-len(images) // columns)) for _, images, _, _ in parts]
    cell = WIDTH / columns
    heights = [(cell + 0.16) * count + 0.3 for count in rows]
    figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
    blocks: Any = figure.subfigures(2, 1, height_ratios=heights)
    for block, (title, images, scores, truth), count in zip(blocks, parts, rows, strict=True):
        polyps, known = int((np.asarray(truth) >= 0).sum()), int((np.asarray(truth) != -2).sum())
        counted = f": {polyps} of these {known} show a polyp" if known else ""
        block.suptitle(f"{title}{counted}", x=0.01, ha="left", fontsize=10, fontweight="bold")
        grid = block.subplots(count, columns, squeeze=False).ravel()
        for axis in grid[len(images) :]:
            axis.set_axis_off()
        for axis, image, score, shown in zip(grid, images, scores, truth, strict=False):
            _draw_frame(axis, image, float(score), int(shown))
    return figure


@styled
def attention_map(
    images: UInt8[np.ndarray, "k h w 3"],
    sentences: Sequence[str],
    weights: Float[np.ndarray, "k l"],
    *,
    image_polyp: Int[np.ndarray, " k"] | None = None,
    title: str = "",
) -> Figure:
    """One patient's attention: each column an image, each row a sentence, each column sums to 1.

    `weights` are the image → text weights of Eq. 4; every cell carries its number, since shades
    are hard to compare. `image_polyp` (index, −1 none, −2 unknown) stands above the frames.
    Beyond ten images the figure is wider than a page.
    """
    from matplotlib.figure import Figure

    weights = np.asarray(weights, float)
    count, texts = weights.shape
    wrapped = [textwrap.fill(sentence, 38) for sentence in sentences]
    row_heights = [0.22 + 0.145 * (text.count("\n") + 1) for text in wrapped]
    text_width = 2.6
    cell = min(1.0, max(0.44, (WIDTH - text_width) / count))
    figure = Figure(
        figsize=(text_width + cell * count, cell + sum(row_heights) + (0.55 if title else 0.3)),
        layout="constrained",
    )
    figure.get_layout_engine().set(w_pad=0.01, h_pad=0.05, wspace=0, hspace=0)  # type: ignore[union-attr,call-arg]
    grid = figure.add_gridspec(
        texts + 1,
        count + 1,
        width_ratios=[text_width, *[cell] * count],
        height_ratios=[cell, *row_heights],
    )
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=10, fontweight="bold")
    corner = figure.add_subplot(grid[0, 0])
    corner.set_axis_off()
    corner.text(
        0.96, 0.05, "polyp that the frame shows ↗\nweight each frame gives to the sentence ↘",
        ha="right", va="bottom", fontsize=7.5, color=GREY,
    )  # fmt: skip
    for k in range(count):
        axis = figure.add_subplot(grid[0, k + 1])
        axis.imshow(images[k])
        _bare(axis)
        if image_polyp is not None:
            words = _truth_words(int(image_polyp[k]), short=cell < 0.6)
            axis.set_title(words, fontsize=7, fontweight="normal", loc="center", pad=2)
    for row, text in enumerate(wrapped):
        label = figure.add_subplot(grid[row + 1, 0])
        label.set_axis_off()
        label.text(0.96, 0.5, text, ha="right", va="center", fontsize=7.5, linespacing=1.05)
        for k in range(count):
            axis = figure.add_subplot(grid[row + 1, k + 1])
            weight = float(weights[k, row])
            axis.set_facecolor(_shade(weight))
            axis.text(
                0.5, 0.5, f"{weight:.2f}", ha="center", va="center", fontsize=7,
                color="white" if weight > 0.9 else "black", transform=axis.transAxes,
            )  # fmt: skip
            _bare(axis)
    return figure


def _draw_frame(axis: Axes, image: UInt8[np.ndarray, "h w 3"], score: float, shown: int) -> None:
    axis.imshow(image)
    _bare(axis)
    words = "● polyp" if shown >= 0 else "no polyp" if shown == -1 else "truth unknown"
    axis.set_title(
        f"{score:+.2f}  {words}", fontsize=7, loc="left", pad=2,
        fontweight="bold" if shown >= 0 else "normal", color=VERMILION if shown >= 0 else "#333333",
    )  # fmt: skip
    if shown >= 0:
        axis.spines[:].set(visible=True, color=VERMILION, linewidth=2)


def _bare(axis: Axes) -> None:
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set(visible=True, color="white", linewidth=0.8)


def _truth_words(polyp: int, *, short: bool) -> str:
    if polyp >= 0:
        return f"{polyp + 1}" if short else f"polyp {polyp + 1}"
    none, unknown = ("–", "?") if short else ("no polyp", "unknown")
    return none if polyp == -1 else unknown


def _shade(weight: float) -> tuple[float, float, float]:
    """White at 0 to the palette's blue at 1."""
    blue = np.array([0x00, 0x72, 0xB2]) / 255
    red, green, rest = 1 - min(max(weight, 0.0), 1.0) * (1 - blue)
    return float(red), float(green), float(rest)
