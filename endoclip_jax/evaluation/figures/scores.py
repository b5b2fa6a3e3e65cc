"""Scores against truth: histograms, ROC and precision–recall, reliability; training losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float

from endoclip_jax.evaluation.calibration import Reliability
from endoclip_jax.evaluation.figures.style import (
    BLACK,
    BLUE,
    CYCLE,
    DASHES,
    GREY,
    MARKERS,
    PURPLE,
    VERMILION,
    panels,
    styled,
)
from endoclip_jax.evaluation.statistics import (
    Labels,
    auroc,
    chance,
    precision_recall_curve,
    roc_curve,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_RARE = 0.25


@styled
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

    figure, axes = panels(len(scores), height=2.6, most_columns=2, sharex=True, sharey=True)
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


@styled
def roc_pr_curves(scores: Mapping[str, Float[np.ndarray, " n"]], labels: Labels) -> Figure:
    """ROC and precision–recall curves of several models on the same samples, with chance."""
    figure, (roc, pr) = panels(2, height=3.2, most_columns=2)
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


@styled
def reliability_curves(curves: Mapping[str, Reliability]) -> Figure:
    """Predicted probability against what came true, each bin of equally many samples.

    A line and a marker of its own for each setting. Where the positive class is rare, the lower
    part of both axes is stretched (square root), for that is where most bins lie.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 4.4), layout="constrained")
    axis = figure.subplots()
    axis.plot([0, 1], [0, 1], color=BLACK, linewidth=1.0, linestyle=(0, (1, 2)), label="perfect")
    for number, (name, curve) in enumerate(curves.items()):
        axis.plot(
            curve.predicted,
            curve.observed,
            color=CYCLE[number % len(CYCLE)],
            linestyle=DASHES[number % len(DASHES)],
            marker=MARKERS[number % len(MARKERS)],
            markersize=5,
            label=name,
        )
    axis.set(
        xlabel="predicted probability of the positive class",
        ylabel="share that was positive",
        aspect="equal",
    )
    first = next(iter(curves.values()))
    if first.observed @ first.count < _RARE * first.count.sum():
        ticks = [0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0]
        axis.set_xscale("function", functions=(_root, np.square))
        axis.set_yscale("function", functions=(_root, np.square))
        axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.set(xlim=(0, 1), ylim=(0, 1))
    axis.grid(color="#e4e4e4", linewidth=0.6)
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


@styled
def training_curves(curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Loss of each stage over its steps, with the floor that no training can go below.

    `curves` maps a stage to its metrics.jsonl rows {"step", "loss", "excess", "split"?}: the floor
    (the targets' entropy) is loss − excess, and the shaded part is what training can still remove.
    Another split has a floor of its own, since its batches are of another size.
    Rows without a split are training; rows lacking a finite step or loss are other events.
    """
    figure, axes = panels(len(curves), height=2.4, most_columns=2)
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
            if all(np.isfinite(row.get("excess", np.nan)) for row in found):
                (excess,) = _columns(found, "excess")
                axis.plot(
                    steps, losses - excess, color=colour, linestyle=":", marker="_",
                    label=f"{split} floor",
                )  # fmt: skip
        axis.set(title=stage, xlabel="step", ylabel="loss (nats)")
    handles: dict[str, Any] = {}
    for axis in axes:
        found_handles, labels = axis.get_legend_handles_labels()
        handles |= dict(zip(labels, found_handles, strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4)
    return figure


def _root(values: Float[np.ndarray, " *any"]) -> Float[np.ndarray, " *any"]:
    return np.sqrt(np.maximum(values, 0))


def _smooth(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Centred running mean over a thirtieth of the curve, of what there is at the ends."""
    window = np.ones(2 * (len(values) // 60) + 1)
    return np.convolve(values, window, "same") / np.convolve(np.ones(len(values)), window, "same")


def _columns(rows: Sequence[Mapping[str, Any]], *names: str) -> list[Float[np.ndarray, " n"]]:
    return [np.array([row[name] for row in rows], float) for name in names]
