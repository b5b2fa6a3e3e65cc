"""A gradient that is not finite under a finite loss: never saved, and the batch is named."""

import jax.numpy as jnp
import numpy as np
import pytest

from endoclip_jax.training import checkpoints
from endoclip_jax.training.loop import NonFiniteLoss, Plan, train
from endoclip_jax.training.optimizer import Schedule, make_optimizer
from endoclip_jax.training.sharding import data_mesh

BAD_STEP = 4


class Roots:
    """Means of square roots; where an input is zero the loss is finite and its gradient is not."""

    name = "roots"
    validation = None
    steps_per_epoch = 5

    @property
    def batches(self):
        return self

    def iterate(self, start_step=0):
        for step in range(start_step, 100):
            x = np.full((2, 3), 0.0 if step + 1 == BAD_STEP else 1.0, np.float32)
            frame = np.asarray([100 + step, 200 + step])
            yield {"x": x, "frame": frame, "valid": np.ones(2, bool)}

    def complete(self, batch):
        return {"x": batch["x"], "valid": batch["valid"]}

    def on_device(self, batch):
        return batch

    def loss(self, params, batch):
        loss = jnp.mean(jnp.sqrt(batch["x"] * params["clip"]["kernel"] ** 2))
        return loss, {"entropy": jnp.zeros(()), "excess": loss}

    def validate(self, params):
        return {}


def test_a_checkpoint_is_never_of_parameters_that_are_not_finite(tmp_path):
    params = {"clip": {"kernel": np.ones(3, np.float32), "logit_scale": np.float32(2)}}
    with pytest.raises(NonFiniteLoss, match=f"parameter.*step {BAD_STEP}.* 103, 203"):
        train(
            Roots(), params, make_optimizer(Schedule(10, 1, 0.1), 0.2),
            Plan(10, 1, 100, 2, checkpoints.Best("step", larger=True)),
            mesh=data_mesh(), folder=tmp_path, meta={"stage": "roots"}, say=lambda _: None,
        )  # fmt: skip
    assert checkpoints.saved_steps(tmp_path) == [2]
    saved, _ = checkpoints.load_params(tmp_path, 2)
    assert np.isfinite(saved["clip"]["kernel"]).all()
