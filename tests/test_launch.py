"""Every launcher, run as a person runs it: a process, files in, files out."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from devices import environment
from tiny_model import TINY_KEYS

from endoclip_jax.configuration import read_command_line
from endoclip_jax.errors import UserError
from endoclip_jax.pipeline import run as run_configuration
from endoclip_jax.pipeline.labelled import evaluate_labelled, parse

ROOT = Path(__file__).parent.parent
TINY_MODEL = [f"--config.model.{key}={value}" for key, value in TINY_KEYS.items()]
TINY_STAGES = [
    f"--config.{stage}.{key}={value}"
    for stage, batch in {"stage1": 16, "stage2": 4, "stage3": 4, "clip": 16}.items()
    for key, value in {"global_batch": batch, "epochs": 1, "warmup_epochs": 1}.items()
]
TINY = [*TINY_MODEL, *TINY_STAGES, "--config.eval.bootstrap_draws=20"]


def launch(script, *arguments, cwd, code=0):
    """Runs a launcher from another folder; no traceback may ever be shown."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "launch" / script), *map(str, arguments)],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == code, done.stdout[-2000:] + done.stderr[-4000:]
    assert "Traceback" not in done.stderr
    return done


def launch_here(*arguments):
    """What `launch/main.py` does, in this process: its start-up is paid already."""
    argv = ["main.py", *map(str, arguments)]
    return run_configuration(*read_command_line(argv, ROOT))


@pytest.fixture(scope="module")
def run(tiny_shards, tiny_cohort, tmp_path_factory):
    """One pipeline on prepared shards: its workdir, and what was printed."""
    cwd = tmp_path_factory.mktemp("elsewhere")
    workdir = tmp_path_factory.mktemp("runs") / "pipeline"
    arguments = [
        "--config=configs/pipeline.py",
        f"--workdir={workdir}",
        f"--config.data.shards={tiny_shards}",
        f"--config.eval.malignancy={tiny_cohort / 'polyps'}",
        "--config.preset=demo",
        *TINY,
    ]
    return workdir, launch("main.py", *arguments, cwd=cwd), arguments


def test_pipeline_leaves_what_the_method_names(run):
    workdir, done, _ = run
    for name in ("stage1_round1", "stage1_round2", "stage2", "stage3", "clip"):
        (step,) = [p for p in (workdir / name / "checkpoints").iterdir() if p.name.isdigit()]
        assert {"state", "meta"} <= {entry.name for entry in step.iterdir()}
        assert (workdir / name / "metrics.jsonl").read_text().strip()
        assert list((workdir / name).glob("events.out.*"))
    assert (workdir / "stage1_round2" / "selection.npz").is_file()
    assert "report:" in done.stdout
    page = (workdir / "report" / "index.html").read_text()
    assert "not a medical device" in page and "<script" not in page


def test_results_have_every_model_task_and_setting(run):
    workdir, _, _ = run
    results = json.loads((workdir / "results.json").read_text())
    assert {"schema", "seed", "commit", "hardware", "seconds", "rows"} <= results.keys()
    found = {(row["model"], row["task"], row["setting"], row["metric"]) for row in results["rows"]}
    for model in ("Endo-CLIP", "CLIP (trained here)", "untrained"):
        for task in ("detection", "malignancy"):
            for metric in ("auroc", "aupr"):
                assert (model, task, "zero-shot", metric) in found
    assert ("Endo-CLIP", "malignancy", "zero-shot P0", "auroc") in found
    assert ("Endo-CLIP", "selection", "after round 2", "precision") in found
    values = [row["value"] for row in results["rows"]]
    assert all(0 <= value <= 1 for value in values if value is not None)
    for task, metric in (("detection", "brier"), ("retrieval", "recall@1"), ("attention", "peak")):
        assert any((row["task"], row["metric"]) == (task, metric) for row in results["rows"])


def test_second_run_says_done_and_trains_nothing(run, capsys):
    workdir, _, arguments = run
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("checkpoints/*/state/*")}
    results = json.loads((workdir / "results.json").read_text())["rows"]
    assert launch_here(*arguments) == 0
    shown = capsys.readouterr().out
    assert all(f"{stage}: done already" in shown for stage in ("stage1", "stage2", "stage3"))
    assert before == {p: p.stat().st_mtime_ns for p in workdir.rglob("checkpoints/*/state/*")}
    again = json.loads((workdir / "results.json").read_text())["rows"]
    assert [row["model"] for row in again] == [row["model"] for row in results]
    assert [row["value"] for row in again] == pytest.approx([row["value"] for row in results])


@pytest.mark.parametrize(
    "change, named",
    [
        ("--config.seed=1", "seed=0.*--workdir"),
        ("--config.stage2.learning_rate=0.5", r"stage2\.learning_rate"),
    ],
)
def test_workdir_of_another_run_is_refused(run, change, named):
    with pytest.raises(UserError, match=named):
        launch_here(*run[2], change)


def test_evaluate_scores_a_labelled_folder(run, tiny_cohort, tmp_path):
    workdir, _, _ = run
    done = launch(
        "evaluate.py",
        f"--checkpoint={workdir / 'stage3'}",
        f"--data={tiny_cohort / 'polyps'}",
        f"--out={tmp_path / 'out'}",
        cwd=tmp_path,
    )
    assert "malignancy" in done.stdout
    rows = json.loads((tmp_path / "out" / "results.json").read_text())["rows"]
    assert {row["task"] for row in rows} == {"malignancy"}


def test_evaluate_measures_two_checkpoints_on_shards(run, tiny_shards, tmp_path, capsys):
    """In this process: detection and what only examinations allow, and the paired difference."""
    workdir, _, _ = run
    options = parse(
        [
            f"--checkpoint={workdir / 'stage3'}",
            f"--second={workdir / 'clip'}",
            f"--data={tiny_shards}",
            "--split=train",
            "--draws=20",
            f"--out={tmp_path}",
        ]
    )
    evaluate_labelled(options)
    shown = capsys.readouterr().out
    assert "p = " in shown and "no results by segment, imaging" in shown
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    found = {(row["model"], row["task"], row["metric"]) for row in rows}
    for task, metric in (
        ("detection", "auroc"), ("detection", "ece"), ("detection", "sensitivity"),
        ("retrieval", "recall@5"), ("selection", "precision"), ("attention", "peak"),
    ):  # fmt: skip
        assert ("stage3", task, metric) in found
    assert ("stage3 − clip", "detection", "auroc difference") in found
    settings = {row["setting"] for row in rows}
    assert "at 90 % specificity in validation" in settings
    assert (tmp_path / "figures" / "calibration_detection.svg").is_file()


@pytest.mark.parametrize(
    "change, named",
    [
        ("--data=/nowhere", "nothing to evaluate on"),
        ("--specificity=90", "no share between 0 and 1"),
        ("--protocol=endoreport50", r"detection/labels\.csv"),
        ("--probe=train", "needs prepared shards"),
        ("--prompts=/nowhere.json", "prompts /nowhere.json cannot be read"),
    ],
)
def test_evaluate_says_what_is_wrong(change, named, tiny_cohort):
    arguments = ["--checkpoint=none", f"--data={tiny_cohort / 'polyps'}", change]
    with pytest.raises(UserError, match=named):
        evaluate_labelled(parse(arguments))


def test_real_run_stops_where_an_earlier_stage_is_missing(tiny_shards, tmp_path):
    with pytest.raises(UserError, match=r"configs/stage1\.py"):
        launch_here(
            "--config=configs/stage2.py",
            f"--workdir={tmp_path / 'run'}",
            f"--config.data.shards={tiny_shards}",
            "--config.preset=demo",
            *TINY,
        )


@pytest.mark.parametrize(
    "arguments, named",
    [
        ([], "--config is missing"),
        (["--config=configs/stage9.py"], r"configs/stage9\.py"),
        (["--config=configs/stage1.py", "--config.nothing=1"], "nothing"),
        (["--config=configs/stage1.py", "--config.seed=x"], "seed"),
        (["--config=configs/stage1.py", "--config.stage3.attention=cross"], "literal"),
        (["--config=configs/stage1.py", "--config.data.shards=/nowhere/at/all"], "/nowhere/at/all"),
        (["--config=configs/stage1.py", "--unknown=1"], "unknown"),
        (["--config=configs/stage1.py", "--config.loss.implementation=fast"], "streaming, auto"),
        (
            [
                "--config=configs/stage3.py",
                "--config.loss.implementation=streaming",
                "--config.stage3.attention=pairwise",
            ],
            "streaming cannot serve .*pairwise",
        ),
    ],
)
def test_main_says_what_is_wrong(arguments, named, tmp_path):
    with pytest.raises(UserError, match=named) as error:
        launch_here(*arguments, f"--workdir={tmp_path / 'run'}")
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("run/stage*"))


def test_a_users_mistake_is_one_line_and_code_2(tmp_path):
    done = launch("main.py", "--config=configs/stage9.py", cwd=tmp_path, code=2)
    assert "configs/stage9.py" in done.stderr and done.stderr.count("\n") == 1


def test_batch_too_large_names_the_largest_that_fits(tiny_shards, tmp_path):
    with pytest.raises(UserError, match="largest that fits is 40"):
        launch_here(
            "--config=configs/stage1.py",
            f"--workdir={tmp_path / 'run'}",
            f"--config.data.shards={tiny_shards}",
            "--config.preset=demo",
            *TINY,
            "--config.stage1.global_batch=4096",
        )
