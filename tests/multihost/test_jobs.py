"""Real jobs of two processes with four devices each, and what happens to them."""

import json
import signal

import numpy as np
import pytest
from jobs import Job, run_job
from numbers_of_runs import compare, small_arguments

from endoclip_jax.training.checkpoints import saved_steps

TWO = {"processes": 2, "devices": 4}
ROUNDS = ("stage1_round1", "stage1_round2")


def selection(workdir, number):
    with np.load(workdir / f"stage1_round{number}" / "selection.npz") as stored:
        return {name: stored[name] for name in stored.files}


def arguments_of(workdir, shards, **keys):
    """Two epochs of each round of stage 1; `tests/scripts/same_numbers.py` runs every stage."""
    given = {"stage1.global_batch": 16, "stage1.epochs": 2, "data.shards": shards}
    return small_arguments("stage1", workdir, given | keys)


@pytest.fixture(scope="module")
def undisturbed(tiny_shards, tmp_path_factory):
    """The workdir of one process with one device that nobody disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    run_job(arguments_of(folder / "run", tiny_shards), folder=folder)
    return folder / "run"


def test_two_processes_go_on_where_one_was_killed_while_scoring(tiny_shards, undisturbed, tmp_path):
    """kill -9 between two chunks of scores; then 2 x 4 devices end like 1 x 1 without a break."""
    workdir = tmp_path / "run"
    arguments = arguments_of(workdir, tiny_shards, **{"scoring.chunk": 8})
    scores = workdir / "stage1_round1" / "scoring"
    with Job(arguments, folder=tmp_path) as job:
        job.wait_until(lambda: len(list(scores.rglob("*.npy"))) >= 3)
    assert list(scores.rglob("*.npy"))
    assert not (workdir / "stage1_round1" / "selection.npz").exists()

    texts = run_job(arguments, folder=tmp_path, **TWO)
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


def long_arguments(workdir, shards, **keys):
    """Stage 1 for longer than any test waits."""
    keys |= {"stage1.epochs": 5000, "log.validate_epochs": 5000, "log.save_epochs": 5000}
    return arguments_of(workdir, shards, **keys)


def steps_logged(workdir):
    path = workdir / "stage1_round1" / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return max((json.loads(line)["step"] for line in lines), default=0)


def test_sigterm_to_one_process_saves_and_ends_all(tiny_shards, tmp_path):
    workdir = tmp_path / "run"
    with Job(long_arguments(workdir, tiny_shards), folder=tmp_path, **TWO) as job:
        job.wait_until(lambda: steps_logged(workdir) >= 2)
        job.processes[1].send_signal(signal.SIGTERM)
        assert job.wait() == [0, 0], job.shown()
        assert "saved; run the same command again" in job.text(0)
    (step,) = saved_steps(workdir / "stage1_round1")
    assert step == steps_logged(workdir) and f"stopped at step {step} of" in job.text(0)


def test_a_process_that_hangs_ends_the_job_and_the_step_is_named(tiny_shards, tmp_path):
    workdir = tmp_path / "run"
    arguments = long_arguments(workdir, tiny_shards, **{"distributed.step_limit_s": 10})
    with Job(arguments, folder=tmp_path, **TWO) as job:
        job.wait_until(lambda: steps_logged(workdir) >= 2)
        job.processes[1].send_signal(signal.SIGSTOP)
        assert job.processes[0].wait(100) == 10, job.shown()
        last = job.text(0).splitlines()[-1]
        assert "watchdog: stage1_round1, step" in last and "longer than 10 s" in last


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
