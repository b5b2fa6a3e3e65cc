"""Trains what a row needs, each cell in its own folder, and finds what is there already."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from endoclip_jax.configuration import claim_workdir, with_settings
from endoclip_jax.errors import Stopped
from endoclip_jax.pipeline.estimate import check_room
from endoclip_jax.pipeline.run import FOLDERS_OF, Run, is_done
from endoclip_jax.pipeline.tables.plan import Cell, Row, parents
from endoclip_jax.pipeline.train import RUN_STAGE
from endoclip_jax.training import checkpoints, processes


def cell_run(cohort: Run, seed: int, cells: Mapping[str, Cell], stage: str, folder: Path) -> Run:
    """The run that trains one cell of a row: its own workdir, its parents' stages elsewhere.

    Args:
      cohort: the table's run, with the data.
      cells: the row's cells by stage.
      folder: of the seed.
    """
    own = cells[stage]
    return replace(
        cohort,
        config=_settled(cohort, seed, dict(own.settings)),
        workdir=folder / own.folder,
        setting=replace(cohort.setting, seed=seed),
        elsewhere=_places(cells, folder),
        seconds={},
    )


def row_run(cohort: Run, seed: int, row: Row, cells: Mapping[str, Cell], folder: Path) -> Run:
    """The run a row is evaluated in: all its stages lie in their cells."""
    return replace(
        cohort,
        config=_settled(cohort, seed, row.settings),
        workdir=folder,
        setting=replace(cohort.setting, seed=seed),
        elsewhere=_places(cells, folder),
        seconds={},
    )


def _settled(cohort: Run, seed: int, settings: Mapping[str, Any]) -> ConfigDict:
    config = with_settings(cohort.config, settings)
    config.seed = seed
    return config


def _places(cells: Mapping[str, Cell], folder: Path) -> dict[str, Path]:
    return {
        name: folder / cell.folder / name
        for stage, cell in cells.items()
        for name in FOLDERS_OF[stage]
    }


def train_cells(
    cohort: Run, seed: int, cells: Mapping[str, Cell], folder: Path, done: set[Path]
) -> None:
    """Trains the row's cells that are not finished, parents first.

    Args:
      done: folders of cells known to be finished; those found or made are added.

    Raises:
      Stopped: when asked to stop; finished cells stay, an unfinished one goes on next time.
    """
    for stage in cells:
        run = cell_run(cohort, seed, cells, stage, folder)
        if run.workdir in done:
            continue
        processes.first(partial(_claim, run, stage))
        if processes.first(partial(is_done, run, stage)):
            cohort.say(f"{_name(run)}: done already")
        else:
            if cohort.stop.reached():
                raise Stopped(f"{_name(run)} not begun")
            cohort.say(f"{_name(run)}: {processes.first(partial(_room, run, stage))}")
            RUN_STAGE[stage](run)
        done.add(run.workdir)


def seconds_of(run: Run, cells: Mapping[str, Cell]) -> dict[str, float]:
    """Seconds of training of each cell, read off its checkpoints."""
    seconds = {}
    for stage, cell in cells.items():
        metas = [checkpoints.newest_meta(run.folder(name)) for name in FOLDERS_OF[stage]]
        seconds[cell.folder] = sum(float(meta["seconds"]) for meta in metas if meta)
    return seconds


def _claim(run: Run, stage: str) -> None:
    started = any(checkpoints.saved_steps(run.folder(name)) for name in FOLDERS_OF[stage])
    lineage = (stage, *parents(stage, run.config.stage3.start))
    claim_workdir(run.config, run.workdir, lineage if started else ())


def _room(run: Run, stage: str) -> str:
    return check_room(run.config, run.setting.model, run.workdir, [stage])


def _name(run: Run) -> str:
    return f"{run.workdir.parent.name}/{run.workdir.name}"
