"""How every figure looks, and how one becomes a file.

Colours of Okabe and Ito; classes differ in shape or line as well, so that nothing depends on colour
vision. matplotlib is imported inside functions, and no display is needed.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Parameters = ParamSpec("Parameters")

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILION, PURPLE, GREY = "#0072B2", "#D55E00", "#CC79A7", "#767676"
CYCLE = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)
DASHES = ("-", "--", "-.", ":")
MARKERS = ("o", "^", "s", "D", "v", "P", "X")

WIDTH = 7.2  # inches: a page between its margins
DPI = 170

STYLE: dict[Any, Any] = {
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


def styled(draw: Callable[Parameters, Figure]) -> Callable[Parameters, Figure]:
    @wraps(draw)
    def styled(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Figure:
        from matplotlib import rc_context

        with rc_context(STYLE):
            return draw(*args, **kwargs)

    return styled


def panels(
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


def svg_bytes(figure: Figure) -> bytes:
    """The figure as SVG, its letters as outlines: same figure, same bytes."""
    from matplotlib import rc_context

    target = io.BytesIO()
    with rc_context(STYLE):
        figure.savefig(target, format="svg", metadata={"Date": None})
    return target.getvalue()


def save(figure: Figure, stem: Path) -> tuple[Path, Path]:
    """Write STEM.png and STEM.svg, the same bytes for the same figure; returns both paths."""
    stem = Path(stem)
    stem.parent.mkdir(parents=True, exist_ok=True)
    png, svg = stem.with_name(stem.name + ".png"), stem.with_name(stem.name + ".svg")
    png.write_bytes(png_bytes(figure))
    figure.set_layout_engine("none")  # arranged once: arranging is half of drawing
    svg.write_bytes(svg_bytes(figure))
    return png, svg
