"""The loop on a small stage: resume, devices, non-finite losses, damaged metrics."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from endoclip_jax.training import checkpoints
from endoclip_jax.training.loop import NonFiniteLoss, Plan, train
from endoclip_jax.training.metrics import read_metrics
from endoclip_jax.training.optimizer import Schedule, make_optimizer
from endoclip_jax.training.sharding import data_mesh

STEPS = 10


class Positions:
    """Batches of random vectors addressed by step; row counts need not divide the devices."""

    steps_per_epoch = 5

    def __init__(self, rows, bad_step=None):
        self.rows, self.bad_step, self.seen = rows, bad_step, []

    def iterate(self, start_step=0):
        step = start_step
        while True:
            rng = np.random.default_rng(step)
            x = rng.normal(size=(self.rows, 6)).astype(np.float32)
            if step == self.bad_step:
                x[0] = np.nan
            frame = rng.integers(0, 1000, self.rows)
            self.seen.append(frame.tolist())
            yield {"x": x, "frame": frame, "valid": np.ones(self.rows, bool)}
            step += 1


class Regression:
    """Masked mean of squares: a loss over the global batch, like the stages'."""

    name = "regression"

    def __init__(self, rows=6, bad_step=None, scores=()):
        self.batches = Positions(rows, bad_step)
        self.validation = None
        self.scores = iter(scores)

    def complete(self, batch):
        return {"x": batch["x"], "valid": batch["valid"]}

    def loss(self, params, batch):
        out = batch["x"] @ params["clip"]["kernel"]
        weight = batch["valid"].astype(jnp.float32)
        loss = jnp.sum(weight[:, None] * (out - 1) ** 2) / jnp.sum(weight)
        return loss, {"entropy": jnp.zeros(()), "excess": loss}

    def validate(self, params):
        return {"score": next(self.scores, float(jnp.abs(params["clip"]["kernel"]).sum()))}


def run(folder, steps=STEPS, devices=1, stage=None, save_every=5):
    stage = stage or Regression()
    rng = np.random.default_rng(0)
    params = {
        "clip": {
            "kernel": rng.normal(size=(6, 4)).astype(np.float32),
            "logit_scale": np.float32(2.0),
        }
    }
    outcome = train(
        stage,
        params,
        make_optimizer(Schedule(STEPS, 2, 0.1), 0.2),
        Plan(steps, 1, 5, save_every, checkpoints.Best("score", larger=False)),
        mesh=data_mesh(jax.devices()[:devices]),
        folder=folder,
        meta={"stage": stage.name},
        say=lambda _: None,
    )
    return outcome, stage


def rows_of(folder, split):
    return [row for row in read_metrics(folder) if row["split"] == split]


def final(folder, step=STEPS):
    params, meta = checkpoints.load_params(folder, step)
    return params["clip"]["kernel"], meta


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
    run(tmp_path / "one")
    run(tmp_path / "moved", steps=5, devices=8)
    run(tmp_path / "moved", devices=2)
    np.testing.assert_allclose(final(tmp_path / "one")[0], final(tmp_path / "moved")[0], rtol=1e-5)


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
    assert checkpoints.resolve_checkpoint(tmp_path, "newest") == (tmp_path, 30)
    step_folder = tmp_path / "checkpoints" / "25"
    assert checkpoints.resolve_checkpoint(step_folder) == (tmp_path, 25)


def test_metrics_after_the_checkpoint_are_taken_out_on_resume(tmp_path):
    run(tmp_path, steps=5)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 6, "split": "train", "loss": 1.0}) + "\n")
        file.write('{"step": 7, "spl')
    run(tmp_path)
    steps = [row["step"] for row in rows_of(tmp_path, "train")]
    assert steps == list(range(1, STEPS + 1))
