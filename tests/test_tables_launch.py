"""The tables' launcher: what is trained once, what an interruption leaves, what the table holds."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from test_launch import TINY, launch_here

from endoclip_jax.configuration import flatten, resolve
from endoclip_jax.errors import UserError
from endoclip_jax.pipeline.tables.plan import Cell, Row, cells_of, rows_of

FULL = "SP + MP, MC, literal"
SP = "SP, MC"


def table_config(name):
    return resolve(importlib.import_module(f"configs.{name}").get_config(), set())


def plan_of(name):
    config = table_config(name)
    flat = flatten(config.to_dict())
    return {row.name: cells_of(row, flat) for row in rows_of(config.table.to_dict())}


def test_table2_trains_stage1_once_and_stage2_once_for_each_target():
    cells = {cell for own in plan_of("table2").values() for cell in own.values()}
    assert {cell.folder for cell in cells if cell.stage == "stage1"} == {"stage1"}
    assert {cell.folder for cell in cells if cell.stage == "stage2"} == {
        "stage2", "stage2,target=onehot", "stage2,target_norm=l1",
    }  # fmt: skip
    stage3 = sorted(cell.folder for cell in cells if cell.stage == "stage3")
    assert (
        stage3
        == [
            "stage3",
            "stage3,attention=none",
            "stage3,attention=none,target=onehot,stage2.target=onehot",
            "stage3,attention=pairwise",
            "stage3,start=stage1",
            "stage3,target=onehot,stage2.target=onehot",
            "stage3,target_norm=l1,stage2.target_norm=l1",
        ]
        or len(stage3) == 7
    )


def test_a_row_ends_where_it_is_evaluated_and_leaves_out_what_it_does_not_start_from():
    plan = plan_of("table2")
    assert list(plan[SP]) == ["stage1", "stage2"]
    assert list(plan["MP, MC, literal"]) == ["stage1", "stage3"]
    assert plan["SP + MP, MC, averaging"]["stage2"] == plan[SP]["stage2"]


def test_sensitivity_shares_its_base_with_table2_and_stage1_where_nothing_reaches_it():
    plan, base = plan_of("sensitivity"), plan_of("table2")[FULL]
    assert plan["base"] == base
    assert plan["30% of set bits lost"]["stage1"] == base["stage1"]
    assert plan["30% of set bits lost"]["stage2"] != base["stage2"]
    assert plan["temperature kept in stage 3"]["stage2"] == base["stage2"]
    assert plan["rho 0.05"]["stage1"] == Cell("stage1", (("stage1.rho", 0.05),))
    assert plan["target power(4)"] == base  # the preset's own


def test_every_claim_is_about_rows_of_its_table():
    for name in ("table1", "table2", "sensitivity"):
        config = table_config(name)
        names = {row["name"] for row in config.table.rows}
        assert {claim[side] for claim in config.table.claims for side in ("better", "worse")} <= (
            names
        )


def test_best_is_a_pipeline_a_search_and_a_test():
    rows = {
        form: [row["name"] for row in best.table.rows]
        for form in ("search", "test")
        if (best := importlib.import_module("configs.best").get_config(form))
    }
    assert rows["test"] == ["literal, row sums", "literal", "best"]
    assert set(rows["test"][:2]) < set(rows["search"])
    pipeline = resolve(importlib.import_module("configs.best").get_config(), set())
    assert pipeline.goal == "pipeline" and pipeline.stage3.attention == "pairwise"


def test_a_setting_that_is_no_key_is_refused():
    flat = flatten(table_config("table2").to_dict())
    with pytest.raises(UserError, match=r"stage3\.attentoin"):
        cells_of(Row("x", malignancy="stage3", settings={"stage3.attentoin": "none"}), flat)


@pytest.fixture(scope="module")
def arguments(tiny_shards, tiny_cohort, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "tables"
    return workdir, [
        "--config=configs/table2.py",
        f"--workdir={workdir}",
        f"--config.data.shards={tiny_shards}",
        f"--config.eval.malignancy={tiny_cohort / 'polyps'}",
        "--config.preset=demo",
        f"--config.table.only={SP}; {FULL}",
        "--config.table.seeds=(0, 1)",
        "--config.table.leak=False",
        "--config.eval.few_shot=False",
        *TINY,
    ]


def states(workdir: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in workdir.rglob("checkpoints/*/state/*")}


def launched(arguments) -> str:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert launch_here(*arguments) == 0
    return printed.getvalue()


@pytest.fixture(scope="module")
def interrupted(arguments):
    """A run that gets SIGTERM while the second seed trains: what it printed, and left behind."""
    workdir, flags = arguments
    over = threading.Event()

    def terminate() -> None:
        while not (workdir / "seed1" / "stage1" / "stage1_round1").exists():
            if over.is_set():
                return
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    watcher = threading.Thread(target=terminate)
    watcher.start()
    try:
        printed = launched(flags)
    finally:
        over.set()
        watcher.join()
    table = json.loads((workdir / "table2.json").read_text())
    return printed, table, states(workdir)


@pytest.fixture(scope="module")
def completed(arguments, interrupted):
    """The same command again."""
    return launched(arguments[1])


def test_an_interrupted_table_holds_the_seeds_that_are_done(interrupted):
    printed, table, _ = interrupted
    assert "saved; run the same command again" in printed
    assert table["seeds"] == [0]
    assert {row["name"] for row in table["rows"] if row["cells"]} == {SP, FULL}
    assert {row["missing"] for row in table["rows"] if not row["cells"]} == {"not run yet"}
    assert {claim["verdict"] for claim in table["claims"]} <= {"undecided", None}


def test_the_same_command_completes_it_and_trains_no_finished_cell_again(
    arguments, interrupted, completed
):
    workdir, _ = arguments
    before, after = interrupted[2], states(workdir)
    assert {path: after[path] for path in before if "seed0" in str(path)} == {
        path: time for path, time in before.items() if "seed0" in str(path)
    }
    for cell in ("stage1", "stage2", "stage3"):
        assert f"seed0/{cell}: done already" in completed
        assert (workdir / "seed1" / cell / "config.json").is_file()
    assert completed.count("seed0/stage1: done already") == 1
    table = json.loads((workdir / "table2.json").read_text())
    assert table["seeds"] == [0, 1]
    rows = [row for row in table["rows"] if row["cells"]]
    assert [row["seeds"] for row in rows] == [[0, 1], [0, 1]]
    for row in rows:
        assert {cell["column"][0] for cell in row["cells"]} == {"malignancy"}
        assert all(len(cell["values"]) == 2 for cell in row["cells"])
    first = next(row for row in interrupted[1]["rows"] if row["cells"])
    assert rows[0]["cells"][0]["values"][0] == first["cells"][0]["values"][0]


def test_the_table_is_printed_beside_the_papers_numbers_with_its_verdicts(arguments, completed):
    workdir, _ = arguments
    assert "Table 2" in completed and "[.7279]" in completed
    assert "can be matched for certain" in completed
    table = json.loads((workdir / "table2.json").read_text())
    judged = {claim["claim"]: claim for claim in table["claims"]}
    assert len(judged["SP + MP beats SP"]["test"]["of_seeds"]) == 2
    assert judged["CA helps"]["test"] is None
    assert table["seconds"]["training"] > 0 and len(table["seconds"]["of_cells"]) == 6
    page = (workdir / "table2.html").read_text()
    assert "<script" not in page and "[.7279]" in page
    assert "| " + FULL in (workdir / "table2.md").read_text()


def test_a_finished_table_trains_and_evaluates_nothing(arguments, completed):
    workdir, flags = arguments
    files = [*workdir.rglob("checkpoints/*/state/*"), *workdir.rglob("evaluation.json")]
    before = {path: path.stat().st_mtime_ns for path in files}
    table = json.loads((workdir / "table2.json").read_text())
    printed = launched([*flags, f"--config.table.only={SP}"])
    assert before == {path: path.stat().st_mtime_ns for path in files}
    assert "is evaluated" not in printed
    assert json.loads((workdir / "table2.json").read_text())["rows"] == table["rows"]


@pytest.mark.parametrize(
    "change, named",
    [
        ("--config.table.only=SP; nothing", "nothing"),
        ("--config.table.seeds=(0, 0)", "different whole numbers"),
        ("--config.table.cohort=per_seed", "real ones"),
        ("--config.seed=3", "--workdir"),
        ("--config.attributes.noise_flip=1.5", "share between"),
    ],
)
def test_a_table_that_cannot_be_says_why(arguments, completed, change, named):
    with pytest.raises(UserError, match=named):
        launch_here(*arguments[1], change)
