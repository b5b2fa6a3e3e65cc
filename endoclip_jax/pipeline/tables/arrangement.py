"""The paper's Figure 3 for a table: the same polyps as each of its models arranges them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from endoclip_jax.errors import UserError
from endoclip_jax.evaluation import figures
from endoclip_jax.evaluation.evaluate import MALIGNANT, embed_polyps
from endoclip_jax.evaluation.frame_sets import FolderFrames
from endoclip_jax.evaluation.page import Part, Picture
from endoclip_jax.evaluation.tables import json_text
from endoclip_jax.evaluation.wording import FIGURES
from endoclip_jax.files import replace_file
from endoclip_jax.pipeline.run import Run, params_of
from endoclip_jax.pipeline.tables.plan import STAGE_OF, Row
from endoclip_jax.pipeline.tables.scores import alone, is_scored, key_of, read_scored, row_folder
from endoclip_jax.pipeline.tables.subjects import subject
from endoclip_jax.training import processes

_FIGURE = "arrangement"


def arranged(rows: Sequence[Row], table: Mapping[str, Any]) -> tuple[Row, ...]:
    """The rows that the table's `arranged` names, in its order.

    Raises:
      UserError: for a name of no row, or of one without a model of malignancy.
    """
    named = {row.name: row for row in rows if row.malignancy}
    for name in table["arranged"]:
        if name not in named:
            raise UserError(
                f"config.table.arranged names {name!r}; rows with a model of malignancy are: "
                f"{'; '.join(named)}"
            )
    return tuple(named[name] for name in table["arranged"])


def draw_arrangement(runs: Sequence[tuple[Row, Run]], folder: Path, table: str) -> Path | None:
    """Draws the models that are there side by side, unless these very ones are drawn already.

    Args:
      runs: of one seed, row by row; those that were not evaluated are left out.
      folder: of the seed; `rows/TABLE/arrangement.{png,svg,json}` are written there.

    Returns:
      The PNG; None where there are no two models, or no polyps.
    """
    there = [
        (row, run)
        for row, run in runs
        if processes.first(partial(_has_model, row_folder(folder, table, row), run, row))
    ]
    if len(there) < 2 or there[0][1].polyps is None:
        return None
    keys = processes.first(lambda: [key_of(run, row) for row, run in there])
    path = folder / "rows" / table / _FIGURE
    if not processes.first(partial(_is_drawn, path, keys)):
        params = [
            params_of(run, row.malignancy) if row.malignancy in STAGE_OF else None
            for row, run in there
        ]
        processes.first(partial(_draw, there, params, path, keys))
    return path.with_suffix(".png")


def arrangement_parts(png: Path | None) -> tuple[Part, ...]:
    """The figure for the table's page."""
    if png is None:
        return ()
    title, see, beware = FIGURES["tsne"]
    return (Picture(png.read_bytes(), see, beware, alt=title),)


def _has_model(folder: Path, run: Run, row: Row) -> bool:
    """Whether the row was evaluated with what is there now, and had a model."""
    scored = read_scored(folder)
    return scored is not None and not scored.missing and is_scored(folder, key_of(run, row))


def _is_drawn(path: Path, keys: list[dict[str, Any]]) -> bool:
    of = path.with_suffix(".json")
    there = all(path.with_suffix(suffix).exists() for suffix in (".json", ".png", ".svg"))
    return there and json.loads(of.read_text(encoding="utf-8"))["of"] == keys


def _draw(
    runs: Sequence[tuple[Row, Run]], params: Sequence[Any], path: Path, keys: list[dict[str, Any]]
) -> None:
    first = runs[0][1]
    assert first.polyps is not None
    polyps, malignant = FolderFrames.open(first.polyps), np.zeros(0, bool)
    features: dict[str, np.ndarray] = {}
    for (row, run), own in zip(runs, params, strict=True):
        model = subject(alone(run), row.malignancy, row.name, own)
        features[row.name], truth, _ = embed_polyps(model, polyps)
        malignant = np.isin(truth.vienna, MALIGNANT)
    figures.save(figures.tsne_scatter(features, malignant, seed=first.config.seed), path)
    replace_file(path.with_suffix(".json"), json_text({"of": keys}))  # last: all is there
