"""The tables' launcher: what is trained once, what an interruption leaves, what the table holds."""

from __future__ import annotations

import base64
import importlib
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from devices import environment
from PIL import Image
from test_launch import ROOT, TINY, launch, launch_here

from endoclip_jax.configuration import flatten, resolve
from endoclip_jax.errors import UserError
from endoclip_jax.evaluation.results import Row as Number
from endoclip_jax.pipeline.tables import fresh_polyps, gather
from endoclip_jax.pipeline.tables.plan import Cell, Row, cells_of, rows_of
from endoclip_jax.pipeline.tables.scores import Scored
from endoclip_jax.synthetic.cohort import write_cohort

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
    assert {cell.folder for cell in cells if cell.stage == "stage3"} == {
        "stage3", "stage3,attention=none", "stage3,attention=pairwise", "stage3,start=stage1",
        "stage3,stage2.target=onehot,attention=none,target=onehot",
        "stage3,stage2.target=onehot,target=onehot",
        "stage3,stage2.target_norm=l1,target_norm=l1",
    }  # fmt: skip


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


def test_the_search_tries_what_table_1_uses():
    module = importlib.import_module("configs.table1")
    table = resolve(module.get_config(), set())
    search = resolve(module.get_config("search"), set())
    tried = [row["settings"] for row in search.table.rows]
    for stage in ("clip", "dino", "sscd"):
        own = [row for row in tried if f"{stage}.learning_rate" in row]
        taken = {key: flatten(table.to_dict())[key] for key in own[0]}
        assert taken in own and len(own) > 1
    assert all(set(settings) <= set(flatten(table.to_dict())) for settings in tried)


def test_best_is_tested_on_patients_that_chose_nothing(tmp_path):
    config = table_config("table2")
    config.table.fresh_polyps = 3
    fresh = fresh_polyps(config, tmp_path)
    none = dict.fromkeys(("train", "validation", "test"), 0)
    chosen_on = write_cohort(tmp_path / "cohort", seed=config.seed, examinations=none, polyps=3)
    frames = [
        {path.read_bytes() for path in (folder / "images").iterdir()}
        for folder in (fresh, chosen_on / "polyps")
    ]
    assert len(frames[0]) == len(frames[1]) == 3 and not frames[0] & frames[1]


def test_a_setting_that_is_no_key_is_refused():
    flat = flatten(table_config("table2").to_dict())
    with pytest.raises(UserError, match=r"stage3\.attentoin"):
        cells_of(Row("x", malignancy="stage3", settings={"stage3.attentoin": "none"}), flat)


def scored(number, shift):
    """A row's evaluation with one seed: 40 patients, classes `shift` apart."""
    rng = np.random.default_rng(number)
    labels = np.arange(40) % 2
    scores = shift * labels + rng.standard_normal(40)
    value = Number("x", "malignancy", "zero-shot", "auroc", 0.5 + shift / 10, chance=0.5)
    arrays = {
        "scores": scores,
        "labels": labels,
        "groups": np.char.add("p", np.arange(40).astype(str)),
    }
    return Scored((value,), {"malignancy": arrays}, {}, ("a note",), "", 1.0)


def test_seeds_become_a_line_and_a_verdict():
    rows = {
        "good": {n: scored(n, 3.0) for n in (0, 1, 2)},
        "bad": {n: scored(n, 0.0) for n in (1, 2)},
    }
    column = ("malignancy", "auroc", "zero-shot")
    row = Row("good", malignancy="stage3", marks={"MC": "yes"}, paper="every mark")
    line = gather.line(row, rows["good"], [column], ["MC", "CA"])
    assert line.cells[column].values == pytest.approx((0.8, 0.8, 0.8))
    assert (
        line.cells[column].paper == 0.7279 and line.marks == ("yes", "") and line.seeds == (0, 1, 2)
    )
    claim = gather.Claim("better", "malignancy", "good", "bad")
    judged = gather.judge(claim, rows, seed=0, draws=50)
    assert judged.test is not None and len(judged.test.of_seeds) == 2  # seeds that both have
    other = gather.Claim("absent", "malignancy", "good", "nothing")
    assert gather.judge(other, rows, seed=0, draws=50).test is None
    assert gather.notes(rows) == ("a note",)
    strangers = {
        0: replace(
            rows["good"][0],
            scores={
                "malignancy": {
                    **rows["good"][0].scores["malignancy"],
                    "groups": np.arange(40).astype(str),
                }
            },
        )
    }
    with pytest.raises(ValueError, match="different frames"):
        gather.judge(claim, {"good": rows["good"], "bad": strangers}, seed=0, draws=5)


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
        "--config.table.seeds=(0,)",
        "--config.table.leak=False",
        "--config.eval.few_shot=False",
        "--config.stage3.include_single=True",  # as test_launch, whose programs serve here too
        *TINY,
    ]


def files(workdir: Path) -> dict[Path, int]:
    """When what a finished cell or row leaves was written."""
    found = [*workdir.rglob("checkpoints/*/state/*"), *workdir.rglob("evaluation.json")]
    return {path: path.stat().st_mtime_ns for path in found}


@pytest.fixture(scope="module")
def interrupted(arguments):
    """A process that gets SIGTERM while stage 3 trains: what it printed, and left behind."""
    workdir, flags = arguments
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "launch" / "main.py"), *flags],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while not (workdir / "seed0" / "stage3" / "stage3").exists() and process.poll() is None:
        time.sleep(0.01)
    process.terminate()
    printed, _ = process.communicate()
    assert process.returncode == 0, printed[-4000:]
    return printed, files(workdir)


@pytest.fixture(scope="module")
def completed(arguments, interrupted, tmp_path_factory):
    """The same command again."""
    return launch("main.py", *arguments[1], cwd=tmp_path_factory.mktemp("elsewhere")).stdout


def test_the_same_command_goes_on_and_trains_and_evaluates_nothing_again(
    arguments, interrupted, completed
):
    workdir, _ = arguments
    printed, before = interrupted
    assert "saved; run the same command again" in printed
    of_cells = {"stage1": 0, "stage2": 0, "rows": 0}
    after = files(workdir)
    for path, written in before.items():
        part = path.relative_to(workdir / "seed0").parts[0]
        if part in of_cells:
            of_cells[part] += 1
            assert after[path] == written, path
    assert all(of_cells.values()), of_cells
    for cell in ("stage1", "stage2"):
        assert completed.count(f"seed0/{cell}: done already") == 1
    table = json.loads((workdir / "table2.json").read_text())
    assert table["seeds"] == [0] and len(table["seconds"]["of_cells"]) == 3
    rows = {row["name"]: row for row in table["rows"] if row["cells"]}
    assert set(rows) == {SP, FULL} and rows[FULL]["seeds"] == [0]
    assert {row["missing"] for row in table["rows"] if not row["cells"]} == {"not run yet"}


def test_the_table_is_printed_beside_the_papers_numbers_with_its_verdicts(arguments, completed):
    workdir, _ = arguments
    assert "Table 2" in completed and "[.7279]" in completed
    assert "can be matched for certain" in completed
    table = json.loads((workdir / "table2.json").read_text())
    judged = {claim["claim"]: claim for claim in table["claims"]}
    assert judged["SP + MP beats SP"]["verdict"] == "undecided"  # of one seed
    assert judged["CA helps"]["test"] is None
    page = (workdir / "table2.html").read_text()
    assert "<script" not in page and "[.7279]" in page
    assert "| " + FULL in (workdir / "table2.md").read_text()


def test_a_finished_table_trains_and_evaluates_nothing(arguments, completed, capsys):
    workdir, flags = arguments
    before, table = files(workdir), json.loads((workdir / "table2.json").read_text())
    assert launch_here(*flags, f"--config.table.only={SP}") == 0
    assert before == files(workdir)
    assert "is evaluated" not in capsys.readouterr().out
    assert json.loads((workdir / "table2.json").read_text())["rows"] == table["rows"]


def test_models_that_arrange_the_same_polyps_are_drawn_once(arguments, completed):
    workdir, flags = arguments
    flags = [*flags, f"--config.table.arranged={(FULL, 'MP, MC, literal', SP)}"]
    assert launch_here(*flags) == 0
    drawn = workdir / "seed0" / "rows" / "table2" / "arrangement.png"
    with Image.open(drawn) as picture:
        assert picture.width > 500
    assert drawn.with_suffix(".svg").read_text().count('<g id="axes_') == 2  # one was not run
    written = drawn.stat().st_mtime_ns
    assert launch_here(*flags) == 0
    assert drawn.stat().st_mtime_ns == written
    page = (workdir / "table2.html").read_text()
    assert base64.b64encode(drawn.read_bytes()).decode() in page and "Trust the AUROC" in page


@pytest.mark.parametrize(
    "change, named",
    [
        ("--config.table.only=SP; nothing", "nothing"),
        ("--config.table.arranged=('nobody',)", "nobody"),
        ("--config.table.seeds=(0, 0)", "different whole numbers"),
        ("--config.table.cohort=per_seed", "real ones"),
        ("--config.table.fresh_polyps=3", "labelled set that chose nothing"),
        ("--config.seed=3", "--workdir"),
        ("--config.attributes.noise_flip=1.5", "share between"),
    ],
)
def test_a_table_that_cannot_be_says_why(arguments, completed, change, named):
    with pytest.raises(UserError, match=named):
        launch_here(*arguments[1], change)
