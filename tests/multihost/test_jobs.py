"""Real jobs of two processes with four devices each, and what happens to them."""

import json
import shutil
import signal

import numpy as np
import pytest
from jobs import Job, run_job
from numbers_of_runs import COHORT, command_line, compare, small_arguments

from endoclip_jax.pipeline import run as run_configuration
from endoclip_jax.training.checkpoints import saved_steps

TWO = {"processes": 2, "devices": 4}
LONE = {"processes": 2, "devices": 1}  # where what a process holds of an array is all or one part
FSDP = {"mesh.fsdp": 2}
ROUNDS = ("stage1_round1", "stage1_round2")


def selection(workdir, number):
    with np.load(workdir / f"stage1_round{number}" / "selection.npz") as stored:
        return {name: stored[name] for name in stored.files}


def arguments_of(workdir, shards, **keys):
    """Two epochs of each round of stage 1; `tests/scripts/same_numbers.py` runs every stage."""
    given = {"stage1.global_batch": 16, "stage1.epochs": 2, "data.shards": shards}
    return small_arguments("stage1", workdir, given | keys)


def run_here(arguments):
    """What a process of `launch/main.py` does, in this one, whose start is paid already."""
    assert run_configuration(*command_line(arguments)) == 0


@pytest.fixture(scope="module")
def undisturbed(tiny_shards, tmp_path_factory):
    """The workdir of one process, with eight devices, that nobody disturbed."""
    workdir = tmp_path_factory.mktemp("undisturbed") / "run"
    run_here(arguments_of(workdir, tiny_shards))
    return workdir


def test_two_processes_go_on_where_one_was_killed_while_scoring(tiny_shards, undisturbed, tmp_path):
    """kill -9 between two chunks of scores; then 2 x 4 devices end like 1 x 8 without a break.

    Till then there was one device; from then on parameters are split over `fsdp`.
    """
    workdir = tmp_path / "run"
    arguments = arguments_of(workdir, tiny_shards, **{"scoring.chunk": 8})
    scores = workdir / "stage1_round1" / "scoring"
    with Job(arguments, folder=tmp_path) as job:
        job.wait_until(lambda: len(list(scores.rglob("*.npz"))) >= 3)
    assert list(scores.rglob("*.npz"))
    assert not (workdir / "stage1_round1" / "selection.npz").exists()

    split = arguments_of(workdir, tiny_shards, **{"scoring.chunk": 8}, **FSDP)
    texts = run_job(split, folder=tmp_path, **TWO)
    assert "chunks are there already" in texts[0] and "is done" in texts[0]
    assert "stage" not in texts[1]  # the log is process 0's
    assert not scores.exists()
    for stage in ROUNDS:
        steps, same_ids, difference = compare(undisturbed / stage, workdir / stage)
        assert steps >= 2 and same_ids and difference < 1e-5, (stage, steps, same_ids, difference)
    for number in (1, 2):
        one, other = selection(undisturbed, number), selection(workdir, number)
        np.testing.assert_array_equal(one["frame"][one["kept"]], other["frame"][other["kept"]])
        np.testing.assert_allclose(one["score"], other["score"], atol=1e-5)


def test_a_selection_of_other_weights_is_said_and_made_again(
    tiny_shards, undisturbed, tmp_path, capsys
):
    """Round 1's selection in round 2's place: of the same data, by other weights."""
    workdir = tmp_path / "run"
    shutil.copytree(undisturbed, workdir)
    for suffix in ("npz", "json"):
        shutil.copy(
            undisturbed / "stage1_round1" / f"selection.{suffix}", workdir / "stage1_round2"
        )
    run_here(arguments_of(workdir, tiny_shards))
    shown = capsys.readouterr().out
    assert "stage1_round2: the selection there was made with other weights" in shown
    assert "stage1_round1: the selection" not in shown and "done already" not in shown
    for name in ("selection.npz", "selection.json"):
        wanted = (undisturbed / "stage1_round2" / name).read_bytes()
        assert (workdir / "stage1_round2" / name).read_bytes() == wanted
    assert saved_steps(workdir / "stage1_round2") == saved_steps(undisturbed / "stage1_round2")
    run_here(arguments_of(workdir, tiny_shards))
    assert "stage1: done already" in capsys.readouterr().out


def long_arguments(workdir, shards, **keys):
    """Stage 1 for longer than any test waits."""
    keys |= {"stage1.epochs": 5000, "log.validate_epochs": 5000, "log.save_epochs": 5000}
    return arguments_of(workdir, shards, **keys)


def steps_logged(workdir):
    path = workdir / "stage1_round1" / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return max((json.loads(line)["step"] for line in lines), default=0)


def test_sigterm_to_one_process_saves_and_ends_all(tmp_path):
    """In the demonstration, whose data process 0 alone draws."""
    workdir = tmp_path / "run"
    cohort = COHORT | {"train": 24, "validation": 4, "test": 2, "frames": 6, "polyps": 1}
    keys = {f"cohort.{key}": value for key, value in cohort.items()}
    with Job(long_arguments(workdir, "", **keys), folder=tmp_path, **LONE) as job:
        job.wait_until(lambda: steps_logged(workdir) >= 2)
        job.processes[1].send_signal(signal.SIGTERM)
        assert job.wait() == [0, 0], job.shown()
        assert "saved; run the same command again" in job.text(0)
    (step,) = saved_steps(workdir / "stage1_round1")
    assert step == steps_logged(workdir) and f"stopped at step {step} of" in job.text(0)
    assert "DEMONSTRATION" in job.text(0) and "records: 30 in" in job.text(0)
    assert "records" not in job.text(1)


def test_a_process_that_hangs_ends_the_job_and_the_step_is_named(tiny_shards, tmp_path):
    workdir = tmp_path / "run"
    arguments = long_arguments(workdir, tiny_shards, **{"distributed.step_limit_s": 5})
    with Job(arguments, folder=tmp_path, **LONE) as job:
        job.wait_until(lambda: steps_logged(workdir) >= 2)
        job.processes[1].send_signal(signal.SIGSTOP)
        assert job.processes[0].wait(100) == 10, job.shown()
        last = job.text(0).splitlines()[-1]
        assert "watchdog: stage1_round1, step" in last and "longer than 5 s" in last


def test_processes_of_different_commands_do_not_start(tiny_shards, tmp_path):
    workdir = tmp_path / "run"
    own = [[], ["--config.stage1.rho=0.3"]]
    arguments = arguments_of(workdir, tiny_shards)
    for text in run_job(arguments, folder=tmp_path, own=own, code=2, **TWO):
        assert "process 1 has config.stage1.rho 0.3 and process 0 has 0.21" in text
        assert "Traceback" not in text
    assert not list(workdir.glob("stage*"))


def test_a_process_whom_nobody_meets_says_so(tmp_path):
    arguments = [
        "--config=configs/stage1.py",
        f"--workdir={tmp_path / 'run'}",
        "--config.distributed.coordinator=localhost:1",
        "--config.distributed.num_processes=2",
        "--config.distributed.process_id=1",
        "--config.distributed.init_timeout_s=2",
    ]
    (text,) = run_job(arguments, folder=tmp_path, code=3)
    assert "not all processes met at localhost:1 within 2 s" in text.splitlines()[-1]
