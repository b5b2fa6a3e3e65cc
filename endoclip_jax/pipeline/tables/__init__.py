"""The goal `table`: trains what a table's rows need, evaluates them, and writes the table.

    WORKDIR/config.json  data/  seed0/{stage1, stage2,target=onehot, ..., rows/NAME}  seed1/ ...
    WORKDIR/TABLE.{json,md,html}

Every cell is a workdir of its own that resumes like any other run; every row's evaluation is kept
until its checkpoints change. The table is written anew after each seed from what is there.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from endoclip_jax.configuration import claim_workdir, flatten
from endoclip_jax.errors import Stopped, UserError
from endoclip_jax.evaluation import paper
from endoclip_jax.evaluation.leak import noise_rates
from endoclip_jax.evaluation.page import Section, write_page
from endoclip_jax.evaluation.results import current_commit, describe_hardware
from endoclip_jax.evaluation.tables import (
    Match,
    ResultTable,
    as_json,
    as_markdown,
    as_parts,
    as_text,
    json_text,
)
from endoclip_jax.files import replace_file
from endoclip_jax.pipeline.run import Run, open_run, say
from endoclip_jax.pipeline.tables import gather
from endoclip_jax.pipeline.tables.arrangement import (
    arranged,
    arrangement_parts,
    draw_arrangement,
)
from endoclip_jax.pipeline.tables.cells import row_run, seconds_of, train_cells
from endoclip_jax.pipeline.tables.plan import Cell, Row, cells_of, rows_of, wanted
from endoclip_jax.pipeline.tables.scores import read_scored, row_folder, score_row
from endoclip_jax.pipeline.tables.subjects import SEEDLESS
from endoclip_jax.synthetic.cohort import write_cohort
from endoclip_jax.training import processes
from endoclip_jax.training.stopping import StopRequest

_NOISE = {"dim": 128, "images": 6, "texts": 3, "steps": 400}
"""Of the match on pure noise; 17 s of one core for the three forms of attention."""

_ATTENTION = ("literal", "pairwise", "none")
_PLACES = (
    ("data", "shards"), ("init", "clip"), ("init", "resnet"), ("eval", "detection"),
    ("eval", "malignancy"),
)  # fmt: skip


def run_table(config: ConfigDict) -> int:
    """Trains, evaluates and writes the table of a resolved configuration; returns the exit code.

    Raises:
      UserError: for a table that cannot be, or a workdir of another one.
    """
    workdir = Path(config.workdir)
    table = config.table.to_dict()
    rows = rows_of(table)
    flat = flatten(config.to_dict())
    plan = {row.name: cells_of(row, flat) for row in rows}
    now, pictured = wanted(rows, table), arranged(rows, table)
    seeds = _seeds(config)
    if config.table.cohort == "per_seed" and config.data.shards:
        raise UserError(
            "config.table.cohort=per_seed draws patients, and config.data.shards names real ones: "
            "take shared"
        )
    drawn = config.table.cohort == "shared" and not config.data.shards
    if config.table.fresh_polyps and not (drawn and not config.eval.malignancy):
        raise UserError(
            "config.table.fresh_polyps draws polyps for the shared demonstration cohort alone: "
            "with other data name a labelled set that chose nothing by config.eval.malignancy and "
            "pass --config.table.fresh_polyps=0"
        )
    processes.watch(config.distributed.step_limit_s)
    processes.first(lambda: claim_workdir(config, workdir, ()))
    stop = StopRequest()
    done: set[Path] = set()
    data_seconds = 0.0
    picture: Path | None = None
    try:
        with stop:
            cohort = None
            for seed in seeds:
                if cohort is None or config.table.cohort == "per_seed":
                    cohort = _cohort(config, workdir, seed, stop)
                    data_seconds += cohort.seconds["data"]
                    _introduce(cohort, now, plan, seeds)
                for row in now:
                    if _seed_of(config, row, seed) != seed:
                        continue
                    cells, folder = plan[row.name], workdir / f"seed{seed}"
                    train_cells(cohort, seed, cells, folder, done)
                    if stop.reached():
                        raise Stopped(f"seed{seed}, {row.name}")
                    score_row(row_run(cohort, seed, row, cells, folder), row)
                if config.table.leak:
                    processes.first(partial(_noise, workdir / f"seed{seed}", seed))
                if seed == seeds[0]:
                    folder = workdir / f"seed{seed}"
                    runs = [(r, row_run(cohort, seed, r, plan[r.name], folder)) for r in pictured]
                    picture = draw_arrangement(runs, folder, config.table.name)
                text = processes.first(
                    partial(_write, cohort, workdir, rows, plan, seeds, data_seconds, picture)
                )
                # All of it once; a finished seed is a line, and the files hold what is there.
                cohort.say(text if seed == seeds[-1] else f"seed{seed}: in the table")
    except Stopped as stopped:
        say(f"{stopped}: saved; run the same command again to go on")
    finally:
        processes.watchdog().close()
    return 0


def _seeds(config: ConfigDict) -> tuple[int, ...]:
    seeds = tuple(config.table.seeds)
    if not seeds or len(set(seeds)) != len(seeds) or not all(isinstance(s, int) for s in seeds):
        raise UserError(
            f"config.table.seeds is {seeds!r}: give different whole numbers, e.g. "
            "--config.table.seeds='(0, 1, 2)'"
        )
    return seeds


def _seed_of(config: ConfigDict, row: Row, seed: int) -> int:
    """The seed whose evaluation serves a row: the first where neither model nor data has one."""
    if config.table.cohort == "shared" and set(row.sources) <= SEEDLESS:
        return int(config.table.seeds[0])
    return seed


def _cohort(config: ConfigDict, workdir: Path, seed: int, stop: StopRequest) -> Run:
    """The run that holds the data: one for the table, or one for each seed."""
    if config.table.cohort == "shared":
        run = open_run(config, workdir, stop)
        if config.table.fresh_polyps:
            run.polyps = Path(processes.first(lambda: str(fresh_polyps(config, workdir))))
        return run
    own = ConfigDict(config.to_dict())
    own.seed = seed
    folder = workdir / f"seed{seed}"
    processes.first(lambda: folder.mkdir(parents=True, exist_ok=True))
    return open_run(own, folder, stop)


def fresh_polyps(config: ConfigDict, workdir: Path) -> Path:
    """Polyps of patients whom neither training nor any other table has seen."""
    folder = workdir / "fresh_polyps"
    none = dict.fromkeys(("train", "validation", "test"), 0)
    polyps = config.table.fresh_polyps
    write_cohort(folder, seed=config.seed + 1, examinations=none, polyps=polyps)
    return folder / "polyps"


def _introduce(
    cohort: Run, rows: tuple[Row, ...], plan: dict[str, dict[str, Cell]], seeds: tuple[int, ...]
) -> None:
    config = cohort.config
    cells = {cell for row in rows for cell in plan[row.name].values()}
    cohort.say(
        f"{config.table.name}: {len(rows)} rows from {len(cells)} trainings a seed, "
        f"seeds {', '.join(map(str, seeds))}, preset {config.preset}, {config.table.cohort} cohort"
    )
    if not config.data.shards:
        cohort.say(
            "this is the DEMONSTRATION: synthetic patients and a small model; for a real table "
            "prepare your records and pass --config.data.shards=DIR"
        )


def _noise(folder: Path, seed: int) -> None:
    """Match rates on noise with one seed, kept in its folder."""
    path = folder / "noise.json"
    if path.exists() and json.loads(path.read_text(encoding="utf-8"))["of"] == _NOISE:
        return
    rates = {mode: noise_rates(mode, seed=seed, **_NOISE) for mode in _ATTENTION}
    replace_file(path, json_text({"of": _NOISE, "rates": rates}))


def _noise_matches(workdir: Path, seeds: tuple[int, ...]) -> tuple[Match, ...]:
    found = [
        json.loads(path.read_text(encoding="utf-8"))["rates"]
        for path in (workdir / f"seed{seed}" / "noise.json" for seed in seeds)
        if path.exists()
    ]
    said = {"initial": "as it starts", "trained": f"after {_NOISE['steps']} steps on noise"}
    return tuple(
        Match(f"attention {mode}", f"noise, {words}", tuple(rates[mode][name] for rates in found))
        for mode in _ATTENTION
        for name, words in said.items()
        if found
    )


def _write(
    cohort: Run,
    workdir: Path,
    rows: tuple[Row, ...],
    plan: dict[str, dict[str, Cell]],
    seeds: tuple[int, ...],
    data_seconds: float,
    picture: Path | None,
) -> str:
    """Writes the table of what is there; returns its text."""
    table = _gathered(cohort, workdir, rows, plan, seeds, data_seconds)
    name = workdir / table.name
    replace_file(name.with_suffix(".json"), json_text(as_json(table)))
    replace_file(name.with_suffix(".md"), as_markdown(table))
    synthetic = not cohort.config.data.shards
    write_page(
        name.with_suffix(".html"),
        title=table.title,
        subtitle=f"seeds {', '.join(map(str, table.seeds))}; commit {table.facts['commit']}",
        warnings=[
            ("Research only.", "This is not a medical device."),
            *([("Synthetic patients.", "They show that it works, not how well it serves a "
                "clinic.")] if synthetic else []),
        ],
        cards=[],
        sections=[
            Section(table.title, (*as_parts(table), *arrangement_parts(picture))),
        ],
        footer=table.facts["hardware"],
    )  # fmt: skip
    return f"{as_text(table)}\ntable: {name.with_suffix('.json')}, .md, .html"


def _gathered(
    cohort: Run,
    workdir: Path,
    rows: tuple[Row, ...],
    plan: dict[str, dict[str, Cell]],
    seeds: tuple[int, ...],
    data_seconds: float,
) -> ResultTable:
    settings = cohort.config.table.to_dict()
    scored: dict[str, dict[int, Any]] = {row.name: {} for row in rows}
    training: dict[str, float] = {}
    for seed in seeds:
        folder = workdir / f"seed{seed}"
        for row in rows:
            if _seed_of(cohort.config, row, seed) != seed:
                continue  # one evaluation, not a spread of none over seeds
            one = read_scored(row_folder(folder, settings["name"], row))
            if one is not None:
                scored[row.name][seed] = one
                run = row_run(cohort, seed, row, plan[row.name], folder)
                for cell, seconds in seconds_of(run, plan[row.name]).items():
                    training[f"seed{seed}/{cell}"] = seconds
    there = tuple(seed for seed in seeds if any(seed in own for own in scored.values()))
    columns = tuple(tuple(column) for column in settings["columns"])
    marks = tuple(dict.fromkeys(mark for row in rows for mark in row.marks))
    evaluation = sum(one.seconds for own in scored.values() for one in own.values())
    ablation = any(row.paper == paper.FULL for row in rows)
    judging = {"seed": cohort.config.seed, "draws": cohort.config.eval.bootstrap_draws}
    return ResultTable(
        name=settings["name"],
        title=settings["title"],
        columns=columns,
        lines=tuple(gather.line(row, scored[row.name], columns, marks) for row in rows),
        seeds=there,
        mark_names=marks,
        claims=tuple(
            gather.judge(gather.Claim(**claim), scored, **judging) for claim in settings["claims"]
        ),
        matches=(
            *gather.matches(rows, scored),
            *(_noise_matches(workdir, there) if settings["leak"] else ()),
        ),
        paper_rows={k: v for k, v in paper.TABLE_2.items() if ablation and k != paper.FULL},
        notes=(*_remarks(cohort, ablation), *gather.notes(scored)),
        facts={
            "commit": current_commit(),
            "hardware": describe_hardware(),
            "preset": cohort.config.preset,
            "cohort": settings["cohort"],
            "data": cohort.setting.index.fingerprint,
            "seconds": {
                "data": max(data_seconds, _data_seconds_before(workdir / settings["name"])),
                "training": sum(training.values()),
                "evaluation": evaluation,
                "of_cells": training,
            },
            "config": json.loads(json.dumps(_without_places(cohort.config))),
        },
    )


def _data_seconds_before(name: Path) -> float:
    """What drawing the data took when it was drawn: opening it again takes no time."""
    path = name.with_suffix(".json")
    if not path.exists():
        return 0.0
    return float(json.loads(path.read_text(encoding="utf-8"))["seconds"]["data"])


def _remarks(cohort: Run, ablation: bool) -> tuple[str, ...]:
    shared = cohort.config.table.cohort == "shared"
    if cohort.config.data.shards:
        drawn = "One data set; a seed changes initialisation, batches and augmentation."
    elif shared:
        drawn = (
            "One embedded cohort for all seeds; a seed changes initialisation, batches and "
            "augmentation, so the spread over seeds does not hold that of other training patients."
        )
    else:
        drawn = "Each seed draws its own cohort, initialisation, batches and augmentation."
    fresh = cohort.config.table.fresh_polyps
    if fresh:
        drawn += (
            f" Malignancy is judged on {fresh:,} polyps of patients drawn for this table alone."
        )
    what = (
        "Of the paper's Table 2 only the last row, with every mark, can be matched for certain; "
        "the others are printed as they stand there."
    )
    return (drawn, *([what] if ablation else []))


def _without_places(config: ConfigDict) -> dict[str, Any]:
    """The configuration with folders and hosts left out."""
    content: dict[str, Any] = config.to_dict()
    kept = ("seeds", "cohort", "fresh_polyps", "only")
    content["table"] = {key: content["table"][key] for key in kept}
    for section, key in _PLACES:
        content[section][key] = bool(content[section][key])
    del content["workdir"], content["distributed"]
    return content
