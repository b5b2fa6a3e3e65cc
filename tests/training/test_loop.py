"""The loop on a small stage: resume, devices, non-finite losses, damaged metrics."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_stage import STEPS, Positions, Regression, final, run

from endoclip_jax.errors import UserError
from endoclip_jax.training import checkpoints
from endoclip_jax.training.loop import NonFiniteLoss
from endoclip_jax.training.metrics import read_metrics
from endoclip_jax.training.watchdog import Watchdog


def rows_of(folder, split):
    return [row for row in read_metrics(folder) if row["split"] == split]


def test_resume_after_five_of_ten_steps_equals_ten(tmp_path):
    _, whole = run(tmp_path / "whole")
    _, first = run(tmp_path / "broken", steps=5)
    outcome, second = run(tmp_path / "broken")
    assert outcome.finished and outcome.step == STEPS
    assert (first.batches.seen[:5] + second.batches.seen)[:STEPS] == whole.batches.seen[:STEPS]
    (left, left_meta), (right, right_meta) = final(tmp_path / "whole"), final(tmp_path / "broken")
    np.testing.assert_array_equal(left, right)
    assert left_meta["samples"] == right_meta["samples"]
    rows = [
        [row for row in read_metrics(tmp_path / name) if row["split"] == "train"]
        for name in ("whole", "broken")
    ]
    assert rows[0] == rows[1] and [row["step"] for row in rows[0]] == list(range(1, STEPS + 1))


def test_any_number_of_devices_trains_alike(tmp_path):
    """Six rows do not divide four or eight devices: padding must take no part."""
    run(tmp_path / "1")
    for devices in (2, 4, 8):
        run(tmp_path / str(devices), devices=devices)
        np.testing.assert_allclose(
            final(tmp_path / str(devices))[0], final(tmp_path / "1")[0], rtol=1e-5
        )


def test_resumes_on_other_devices(tmp_path):
    """The same sample ids, and the same losses over the next twenty steps."""
    run(tmp_path / "one", steps=25, total=25)
    run(tmp_path / "moved", steps=5, total=25, devices=1)
    run(tmp_path / "moved", steps=15, total=25, devices=8)
    run(tmp_path / "moved", steps=25, total=25, devices=2)
    one, moved = (rows_of(tmp_path / name, "train") for name in ("one", "moved"))
    assert len(one) == 25 and [row["samples"] for row in one] == [row["samples"] for row in moved]
    for name in ("loss", "grad_norm"):
        np.testing.assert_allclose(
            [row[name] for row in moved], [row[name] for row in one], rtol=1e-5
        )


def test_a_finished_run_does_nothing_more(tmp_path):
    run(tmp_path)
    before = final(tmp_path)[0]
    outcome, stage = run(tmp_path)
    assert outcome.finished and stage.batches.seen == []
    np.testing.assert_array_equal(before, final(tmp_path)[0])


def test_non_finite_loss_stops_with_the_frames_and_keeps_the_checkpoint(tmp_path):
    stage = Regression(bad_step=7)
    with pytest.raises(NonFiniteLoss, match="step 8") as error:
        run(tmp_path, stage=stage)
    assert all(str(frame) in str(error.value) for frame in stage.batches.seen[7])
    assert checkpoints.saved_steps(tmp_path) == [5]
    assert np.isfinite(final(tmp_path, 5)[0]).all()


def test_best_checkpoint_is_kept_and_found(tmp_path):
    """Validation at 5, 10, ..., 30: the smallest score stays, though it is not among the newest."""
    run(tmp_path, steps=30, stage=Regression(scores=[3.0, 1.0, 2.0, 4.0, 5.0, 6.0]))
    validated = [(row["step"], row["score"]) for row in rows_of(tmp_path, "validation")]
    assert validated == [(5, 3.0), (10, 1.0), (15, 2.0), (20, 4.0), (25, 5.0), (30, 6.0)]
    assert checkpoints.saved_steps(tmp_path) == [10, 25, 30]
    assert checkpoints.best_step(tmp_path) == 10
    assert checkpoints.resolve_checkpoint(tmp_path) == (tmp_path, 10)
    step_folder = tmp_path / "checkpoints" / "25"
    assert checkpoints.resolve_checkpoint(step_folder) == (tmp_path, 25)


def test_the_watchdog_hears_of_each_part_of_a_validation_by_name(tmp_path):
    watchdog, stage, heard = Watchdog(0), Regression(), []
    stage.validation = Positions(6)
    as_before = stage.complete

    def complete(batch):
        heard.append(watchdog.doing)
        return as_before(batch)

    def validate(_):
        watchdog.step("scoring, batch 1 of 1")
        heard.append(watchdog.doing)
        return {"score": 0.0}

    stage.complete, stage.validate = complete, validate
    run(tmp_path, steps=2, stage=stage, watchdog=watchdog)
    during = "regression, validation at step 2"
    assert heard == [
        "regression, step 1 of 2",
        "regression, step 2 of 2",
        f"{during}, scoring, batch 1 of 1",
        *(f"{during}, batch {number} of 5" for number in range(1, 6)),
    ]
    assert watchdog.doing == "regression, after the validation at step 2"


def test_metrics_after_the_checkpoint_are_taken_out_on_resume(tmp_path):
    run(tmp_path, steps=5)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 6, "split": "train", "loss": 1.0}) + "\n")
        file.write('{"step": 7, "spl')
    run(tmp_path)
    steps = [row["step"] for row in rows_of(tmp_path, "train")]
    assert steps == list(range(1, STEPS + 1))


def test_sigterm_between_log_lines_changes_no_number(tmp_path):
    """Stopped after five steps, logged every four: the sums since step four are carried on."""
    run(tmp_path / "whole", log_every=4)
    outcome, _ = run(
        tmp_path / "broken", log_every=4, save_every=3, stage=Regression(stop=(4, signal.SIGTERM))
    )
    assert (outcome.step, outcome.finished) == (5, False)
    run(tmp_path / "broken", log_every=4)
    rows = [rows_of(tmp_path / name, "train") for name in ("whole", "broken")]
    assert rows[0] == rows[1] and [row["step"] for row in rows[1]] == [4, 8, 10]
    assert len({row["samples"] for row in rows[0]}) == 3
    np.testing.assert_array_equal(final(tmp_path / "whole")[0], final(tmp_path / "broken")[0])


KILLED = "import sys, signal; from pathlib import Path; from small_stage import Regression, run;"
KILLED += "run(Path(sys.argv[1]), stage=Regression(stop=(int(sys.argv[2]), signal.SIGKILL)))"


def test_kill_9_inside_the_second_epoch_changes_no_bit(tmp_path):
    """Killed right after step 5's checkpoint was begun, and again later; the third run ends.

    `tests/scripts/kill_training.py` does this at random to the whole pipeline.
    """
    run(tmp_path / "whole")
    folder = tmp_path / "broken"
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    for step in (5, 8):
        done = subprocess.run(
            [sys.executable, "-c", KILLED, str(folder), str(step)],
            env={**os.environ, "PYTHONPATH": paths},
            capture_output=True,
        )
        assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-2000:]
    run(folder)
    left, right = (checkpoints.read_meta(tmp_path / name, STEPS) for name in ("whole", "broken"))
    assert left["samples"] == right["samples"] and left["checksums"] == right["checksums"]
    np.testing.assert_array_equal(final(tmp_path / "whole")[0], final(folder)[0])
    assert rows_of(tmp_path / "whole", "train") == rows_of(folder, "train")
    assert not [p for p in (folder / "checkpoints").iterdir() if not p.name.isdigit()]


@pytest.mark.parametrize("key", ["data", "seed", "config"])
def test_another_runs_checkpoint_is_refused_in_one_sentence(tmp_path, key):
    meta = {"data": "one", "seed": 0, "config": {"learning_rate": 0.1}}
    run(tmp_path, steps=5, meta=meta)
    other = {"data": "two", "seed": 1, "config": {"learning_rate": 0.2}}
    with pytest.raises(UserError, match=f"another `{key}`.*--workdir") as error:
        run(tmp_path, meta={**meta, key: other[key]})
    assert "\n" not in str(error.value)
    assert checkpoints.saved_steps(tmp_path) == [5]
