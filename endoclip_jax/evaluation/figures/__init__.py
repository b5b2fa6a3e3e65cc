"""Figures of the report: arrays in, a matplotlib `Figure` out, readable in print, colour or not.

`style` has the palette and writes files (PNG, JPEG, SVG), `embeddings` t-SNE, `scores` curves and
histograms, `frames` pictures made of frames.
"""

from endoclip_jax.evaluation.figures.embeddings import (
    attribute_scatter,
    tsne,
    tsne_scatter,
)
from endoclip_jax.evaluation.figures.frames import attention_map, frame_sheet
from endoclip_jax.evaluation.figures.scores import (
    reliability_curves,
    roc_pr_curves,
    score_histograms,
    training_curves,
)
from endoclip_jax.evaluation.figures.style import jpeg_bytes, png_bytes, save, svg_bytes

__all__ = [
    "attention_map",
    "attribute_scatter",
    "frame_sheet",
    "jpeg_bytes",
    "png_bytes",
    "reliability_curves",
    "roc_pr_curves",
    "save",
    "score_histograms",
    "svg_bytes",
    "training_curves",
    "tsne",
    "tsne_scatter",
]
