"""Figures of the report: matplotlib without a display, colours of Okabe and Ito, print-readable.

Every function takes arrays and returns a `Figure`; `png_bytes` and `save` turn one into files.
Classes differ in shape or line as well as in colour, so that nothing depends on colour vision.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from endoclip_jax.evaluation.statistics import (
    Labels,
    auroc,
    chance,
    precision_recall_curve,
    roc_curve,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Parameters = ParamSpec("Parameters")

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILION, PURPLE, GREY = "#0072B2", "#D55E00", "#CC79A7", "#767676"
CYCLE = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)
DASHES = ("-", "--", "-.", ":")

WIDTH = 7.2  # inches: a page between its margins
DPI = 170

_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.edgecolor": "#444444",
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "figure.facecolor": "white",
    "svg.fonttype": "path",
    "svg.hashsalt": "endoclip_jax",
}


def _styled(draw: Callable[Parameters, Figure]) -> Callable[Parameters, Figure]:
    @wraps(draw)
    def styled(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Figure:
        from matplotlib import rc_context

        with rc_context(_STYLE):
            return draw(*args, **kwargs)

    return styled


@_styled
def tsne_scatter(
    features: Mapping[str, Float[np.ndarray, "n _"]],
    malignant: Labels,
    *,
    seed: int,
    names: tuple[str, str] = ("benign (Vienna 1)", "malignant (Vienna 3, 4, 5)"),
) -> Figure:
    """t-SNE of each model's features of the same images, side by side (Endo-CLIP, Fig. 3).

    Green circles against red triangles; axes have no unit and models share none, so no ticks.
    """
    malignant = np.asarray(malignant).astype(bool)
    figure, axes = _panels(len(features), height=2.9, most_columns=3)
    for axis, (model, points) in zip(axes, features.items(), strict=True):
        x, y = tsne(points, seed=seed).T
        for chosen, marker, colour, name in (
            (malignant, "^", VERMILION, names[1]),
            (~malignant, "o", GREEN, names[0]),
        ):
            axis.scatter(
                x[chosen], y[chosen], s=16, marker=marker, facecolor=colour, alpha=0.9,
                edgecolor="white", linewidth=0.3, label=f"{name}, n = {chosen.sum()}",
            )  # fmt: skip
        axis.set(title=model, xticks=[], yticks=[], aspect="equal", adjustable="datalim")
        axis.spines[:].set_visible(True)
        axis.spines[:].set_color("#bbbbbb")
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, markerscale=1.6
    )
    return figure


def tsne(features: Float[np.ndarray, "n d"], *, seed: int) -> Float[np.ndarray, "n 2"]:
    """t-SNE of cosine distances; perplexity 30, or less where there are too few points for it.

    On one thread: sums in another order would draw another picture.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    features = np.asarray(features, np.float32)
    perplexity = min(30.0, (len(features) - 1) / 3)
    with threadpool_limits(1):
        return TSNE(
            perplexity=perplexity, metric="cosine", init="pca", random_state=seed
        ).fit_transform(features)


@_styled
def score_histograms(
    scores: Mapping[str, Float[np.ndarray, " _"]],
    polyp: Mapping[str, Bool[np.ndarray, " _"]],
    *,
    xlabel: str = "score (difference of two cosines)",
) -> Figure:
    """Histograms of detection scores by truth, one panel for each round, on one shared axis.

    `polyp` has the truth of each round's frames under the same names as `scores`.
    """
    from matplotlib.colors import to_rgba

    figure, axes = _panels(len(scores), height=2.6, most_columns=2, sharex=True, sharey=True)
    everything = np.concatenate([np.asarray(s, float) for s in scores.values()])
    bins = np.linspace(everything.min(), np.nextafter(everything.max(), np.inf), 41).tolist()
    for axis, (name, values) in zip(axes, scores.items(), strict=True):
        truth = np.asarray(polyp[name])
        values = np.asarray(values, float)
        for chosen, colour, hatch, label in (
            (~truth, BLUE, "", "no polyp in the frame"),
            (truth, VERMILION, "////", "polyp in the frame"),
        ):
            axis.hist(
                values[chosen],
                bins=bins,
                weights=np.full(chosen.sum(), 100 / max(1, chosen.sum())),
                histtype="stepfilled",
                facecolor=to_rgba(colour, 0.3),
                edgecolor=colour,
                hatch=hatch,
                linewidth=1.1,
                label=label,
            )
        both = truth.any() and not truth.all()
        axis.set(title=f"{name}, AUROC {auroc(values, truth):.3f}" if both else name, xlabel=xlabel)
        axis.tick_params(labelbottom=True)
    axes[0].set_ylabel("share of the class's frames (%)")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


@_styled
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


@_styled
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
    figure.get_layout_engine().set(w_pad=0.01, h_pad=0.025, wspace=0, hspace=0)  # type: ignore[union-attr,call-arg]
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
                color="white" if weight > 0.55 else "black", transform=axis.transAxes,
            )  # fmt: skip
            _bare(axis)
    return figure


@_styled
def training_curves(curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Loss of each stage over its steps, with the floor that no training can go below.

    `curves` maps a stage to its metrics.jsonl rows {"step", "loss", "excess", "split"?}: the floor
    (the targets' entropy) is loss − excess, and the shaded part is what training can still remove.
    Rows without a split are training; rows lacking a finite step or loss are other events.
    """
    figure, axes = _panels(len(curves), height=2.4, most_columns=2)
    for axis, (stage, rows) in zip(axes, curves.items(), strict=True):
        by_split: dict[str, list[Mapping[str, Any]]] = {}
        for row in rows:
            if "step" in row and np.isfinite(row.get("loss", np.nan)):
                by_split.setdefault(row.get("split", "train"), []).append(row)
        train = by_split.pop("train", [])
        if train:
            steps, losses = _columns(train, "step", "loss")
            axis.plot(steps, losses, color=BLUE, alpha=0.3, linewidth=0.7)
            axis.plot(steps, _smooth(losses), color=BLUE, label="training loss (smoothed)")
        floored = [row for row in train if np.isfinite(row.get("excess", np.nan))]
        if floored:
            steps, losses, excess = _columns(floored, "step", "loss", "excess")
            losses, floor = _smooth(losses), _smooth(losses - excess)
            axis.plot(steps, floor, color=GREY, linestyle="--", label="floor (target entropy)")
            axis.fill_between(steps, floor, losses, color=BLUE, alpha=0.1, linewidth=0)
        for (split, found), colour in zip(by_split.items(), (VERMILION, PURPLE), strict=False):
            steps, losses = _columns(found, "step", "loss")
            axis.plot(
                steps, losses, color=colour, marker="o", markersize=3, linestyle="-.",
                label=f"{split} loss",
            )  # fmt: skip
        axis.set(title=stage, xlabel="step", ylabel="loss (nats)")
    handles: dict[str, Any] = {}
    for axis in axes:
        found_handles, labels = axis.get_legend_handles_labels()
        handles |= dict(zip(labels, found_handles, strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4)
    return figure


@_styled
def roc_pr_curves(scores: Mapping[str, Float[np.ndarray, " n"]], labels: Labels) -> Figure:
    """ROC and precision–recall curves of several models on the same samples, with chance."""
    figure, (roc, pr) = _panels(2, height=3.2, most_columns=2)
    for number, (model, values) in enumerate(scores.items()):
        line: dict[str, Any] = {
            "color": CYCLE[number % len(CYCLE)],
            "linestyle": DASHES[number % len(DASHES)],
        }
        roc.plot(*roc_curve(values, labels), label=model, **line)
        recall, precision = precision_recall_curve(values, labels)
        pr.step(np.r_[0, recall], np.r_[precision[0], precision], where="pre", **line)
    roc.plot([0, 1], [0, 1], color=BLACK, linewidth=1.0, linestyle=(0, (1, 2)), label="chance")
    pr.axhline(chance("aupr", labels), color=BLACK, linewidth=1.0, linestyle=(0, (1, 2)))
    roc.set(title="ROC", xlabel="false positive rate", ylabel="true positive rate (sensitivity)")
    pr.set(title="Precision–recall", xlabel="recall (sensitivity)", ylabel="precision")
    for axis in (roc, pr):
        axis.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02), aspect="equal")
        axis.grid(color="#e4e4e4", linewidth=0.6)
        axis.set_axisbelow(True)
    figure.legend(*roc.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def png_bytes(figure: Figure) -> bytes:
    """The figure as PNG: same figure, same bytes."""
    target = io.BytesIO()
    figure.savefig(target, format="png", dpi=DPI, metadata={"Software": None})
    return target.getvalue()


def jpeg_bytes(figure: Figure) -> bytes:
    """The figure as JPEG, for sheets of photographs: a tenth of the size of their PNG."""
    target = io.BytesIO()
    figure.savefig(target, format="jpeg", dpi=DPI, pil_kwargs={"quality": 88, "optimize": True})
    return target.getvalue()


def save(figure: Figure, stem: Path) -> tuple[Path, Path]:
    """Write STEM.png and STEM.svg, the same bytes for the same figure; returns both paths."""
    from matplotlib import rc_context

    stem = Path(stem)
    stem.parent.mkdir(parents=True, exist_ok=True)
    png, svg = stem.with_name(stem.name + ".png"), stem.with_name(stem.name + ".svg")
    png.write_bytes(png_bytes(figure))
    with rc_context(_STYLE):
        figure.savefig(svg, format="svg", metadata={"Date": None})
    return png, svg


def _panels(
    count: int, *, height: float, most_columns: int, **shared: Any
) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels in as few rows as fit the page; unused cells are removed."""
    from matplotlib.figure import Figure

    columns = min(count, most_columns) if count != 4 else 2
    rows = -(-count // columns)
    figure = Figure(figsize=(WIDTH, height * rows + 0.3), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **shared).ravel()
    for axis in axes[count:]:
        axis.remove()
    return figure, list(axes[:count])


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


def _smooth(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Centred running mean over a thirtieth of the curve, of what there is at the ends."""
    window = np.ones(2 * (len(values) // 60) + 1)
    return np.convolve(values, window, "same") / np.convolve(np.ones(len(values)), window, "same")


def _columns(rows: Sequence[Mapping[str, Any]], *names: str) -> list[Float[np.ndarray, " n"]]:
    return [np.array([row[name] for row in rows], float) for name in names]
