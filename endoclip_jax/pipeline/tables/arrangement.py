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
from endoclip_jax.evaluation.tables import json_text, write_whole
from endoclip_jax.evaluation.wording import FIGURES
from endoclip_jax.pipeline.run import Run, params_of
from endoclip_jax.pipeline.tables.plan import STAGE_OF, Row
from endoclip_jax.pipeline.tables.scores import alone, key_of, read_scored, row_folder
from endoclip_jax.pipeline.tables.subjects import subject
from endoclip_jax.training import processes

_FIGURE = "arrangement"


def arranged(rows: Sequence[Row], table: Mapping[str, Any]) -> tuple[Row, ...]:
    """The rows that the table's `arranged` names, in its order.

    Raises:
      UserError: for a name that no row with a model of malignancy has.
    """
    named = {row.name: row for row in rows if row.malignancy}
    for name in table["arranged"]:
        if name not in named:
            raise UserError(f"config.table.arranged names {name!r}, of which there is no row")
    return tuple(named[name] for name in table["arranged"])


def draw_arrangement(runs: Sequence[tuple[Row, Run]], folder: Path, table: str) -> None:
    """Draws the models that are there side by side, unless these very ones are drawn already.

    Args:
      runs: of one seed, row by row; those that were not evaluated are left out.
      folder: of the seed; `rows/TABLE/arrangement.{png,svg,json}` are written there.
    """
    there = [(row, run) for row, run in runs if _has_model(folder, table, row)]
    if len(there) < 2 or there[0][1].polyps is None:
        return
    keys = processes.first(lambda: [key_of(run, row) for row, run in there])
    path = folder / "rows" / table / _FIGURE
    if processes.first(partial(_is_drawn, path, keys)):
        return
    params = [
        params_of(run, row.malignancy) if row.malignancy in STAGE_OF else None for row, run in there
    ]
    processes.first(partial(_draw, there, params, path, keys))


def arrangement_parts(folder: Path, table: str) -> tuple[Part, ...]:
    """The figure for the table's page; nothing where none was drawn."""
    path = folder / "rows" / table / f"{_FIGURE}.png"
    if not path.exists():
        return ()
    title, see, beware = FIGURES["tsne"]
    return (Picture(path.read_bytes(), see, beware, alt=title),)


def _has_model(folder: Path, table: str, row: Row) -> bool:
    def found() -> bool:
        scored = read_scored(row_folder(folder, table, row))
        return scored is not None and not scored.missing

    return processes.first(found)


def _is_drawn(path: Path, keys: list[dict[str, Any]]) -> bool:
    of = path.with_suffix(".json")
    return of.exists() and json.loads(of.read_text(encoding="utf-8"))["of"] == keys


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
    write_whole(path.with_suffix(".json"), json_text({"of": keys}))  # last: all is there
