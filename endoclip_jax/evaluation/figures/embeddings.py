"""Features seen by t-SNE: of several models side by side, and coloured by attribute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float

from endoclip_jax.evaluation.figures.style import (
    CYCLE,
    GREEN,
    GREY,
    MARKERS,
    VERMILION,
    panels,
    styled,
)
from endoclip_jax.evaluation.statistics import Labels

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@styled
def tsne_scatter(
    features: Mapping[str, Float[np.ndarray, "n _"]],
    malignant: Labels,
    *,
    seed: int,
    names: tuple[str, str] = ("benign (Vienna 1)", "malignant (Vienna 3, 4, 5)"),
) -> Figure:
    """t-SNE of each model's features of the same images, side by side (Endo-CLIP, Fig. 3).

    Any number of models: Figure 3's DINO, SSCD, CLIP and Endo-CLIP, or one model after each stage.
    Green circles against red triangles; axes have no unit and models share none, so no ticks.
    """
    malignant = np.asarray(malignant).astype(bool)
    figure, axes = panels(len(features), height=2.9, most_columns=3)
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


@styled
def attribute_scatter(
    features: Float[np.ndarray, "n d"],
    attributes: Mapping[str, Sequence[str]],
    *,
    seed: int,
) -> Figure:
    """One t-SNE of the same points, a panel an attribute, each value its colour and marker.

    `attributes` maps an attribute to the value of each point; "" is drawn small and grey. Beyond
    seven values the rarest are drawn as "others".
    """
    places = tsne(features, seed=seed)
    figure, axes = panels(len(attributes), height=3.3, most_columns=3)
    for axis, (name, of_points) in zip(axes, attributes.items(), strict=True):
        values = np.asarray(of_points)
        found, counts = np.unique(values[values != ""], return_counts=True)
        common = found[np.argsort(-counts, kind="stable")][: len(CYCLE)]
        others = (values != "") & ~np.isin(values, common)
        axis.scatter(*_xy(places, values == ""), s=5, color="#c8c8c8", linewidth=0)
        if others.any():
            axis.scatter(*_xy(places, others), s=7, color=GREY, linewidth=0, label="others")
        for value, colour, marker in zip(common, CYCLE, MARKERS, strict=False):
            axis.scatter(
                *_xy(places, values == value), s=15, marker=marker, facecolor=colour, alpha=0.9,
                edgecolor="white", linewidth=0.3, label=f"{value}, n = {(values == value).sum()}",
            )  # fmt: skip
        axis.set(title=name, xticks=[], yticks=[], aspect="equal", adjustable="datalim")
        axis.spines[:].set_visible(True)
        axis.spines[:].set_color("#bbbbbb")
        axis.legend(
            loc="upper center", bbox_to_anchor=(0.5, -0.02), fontsize=7, markerscale=1.3,
            handletextpad=0.2,
        )  # fmt: skip
    return figure


def _xy(places: Float[np.ndarray, "n 2"], chosen: Bool[np.ndarray, " n"]) -> tuple[Any, Any]:
    return places[chosen, 0], places[chosen, 1]
