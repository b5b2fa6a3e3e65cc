"""A stage small enough to be trained in a blink, and the call that trains it."""

import os

import jax
import jax.numpy as jnp
import numpy as np

from endoclip_jax.training import checkpoints
from endoclip_jax.training.loop import Plan, train
from endoclip_jax.training.optimizer import Schedule, make_optimizer
from endoclip_jax.training.sharding import data_mesh
from endoclip_jax.training.stopping import StopRequest

STEPS = 10


class Positions:
    """Batches of random vectors addressed by step; row counts need not divide the devices.

    `stop`: a step, and the signal that this process sends itself when its batch is read.
    """

    steps_per_epoch = 5

    def __init__(self, rows, bad_step=None, stop=None):
        self.rows, self.bad_step, self.stop, self.seen = rows, bad_step, stop, []

    def iterate(self, start_step=0):
        step = start_step
        while True:
            rng = np.random.default_rng(step)
            x = rng.normal(size=(self.rows, 6)).astype(np.float32)
            if self.stop is not None and step == self.stop[0]:
                os.kill(os.getpid(), self.stop[1])
            if step == self.bad_step:
                x[0] = np.nan
            frame = rng.integers(0, 1000, self.rows)
            self.seen.append(frame.tolist())
            yield {"x": x, "frame": frame, "valid": np.ones(self.rows, bool)}
            step += 1


class Regression:
    """Masked mean of squares: a loss over the global batch, like the stages'."""

    name = "regression"

    def __init__(self, rows=6, bad_step=None, stop=None, scores=()):
        self.batches = Positions(rows, bad_step, stop)
        self.validation = None
        self.scores = iter(scores)

    def complete(self, batch):
        return {"x": batch["x"], "valid": batch["valid"]}

    def on_device(self, batch):
        return batch

    def loss(self, params, batch):
        out = batch["x"] @ params["clip"]["kernel"]
        weight = batch["valid"].astype(jnp.float32)
        loss = jnp.sum(weight[:, None] * (out - 1) ** 2) / jnp.sum(weight)
        return loss, {"entropy": jnp.zeros(()), "excess": loss}

    def validate(self, params):
        return {"score": next(self.scores, float(jnp.abs(params["clip"]["kernel"]).sum()))}


def run(
    folder, steps=STEPS, devices=1, stage=None, save_every=5, log_every=1, width=4, total=STEPS,
    meta=None, say=lambda _: None, watchdog=None,
):  # fmt: skip
    stage = stage or Regression()
    rng = np.random.default_rng(0)
    params = {
        "clip": {
            "kernel": rng.normal(size=(6, width)).astype(np.float32),
            "logit_scale": np.float32(2.0),
        }
    }
    with StopRequest() as request:
        outcome = train(
            stage,
            params,
            make_optimizer(Schedule(total, 2, 0.1), 0.2),
            Plan(steps, log_every, 5, save_every, checkpoints.Best("score", larger=False)),
            mesh=data_mesh(jax.devices()[:devices]),
            folder=folder,
            meta={"stage": stage.name, **(meta or {})},
            say=say,
            stop=request.reached,
            watchdog=watchdog,
        )
    return outcome, stage


def final(folder, step=STEPS):
    params, meta = checkpoints.load_params(folder, step)
    return params["clip"]["kernel"], meta
