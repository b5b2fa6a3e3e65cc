"""What training carries from step to step, and the one pure function that advances it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from endoclip_jax.training.metrics import StepMetrics
from endoclip_jax.training.optimizer import project_logit_scale

Batch = Mapping[str, jax.Array]
Terms = dict[str, jax.Array]
Loss = Callable[[Any, Batch], tuple[jax.Array, Terms]]
AfterUpdate = Callable[[Any, Terms], Any]


def unchanged(params: Any, _terms: Terms) -> Any:
    """What follows an update where all parameters are the optimizer's: nothing."""
    return params


@flax.struct.dataclass
class TrainState:
    """Parameters, optimizer state and the number of updates made: with the data, a full cursor."""

    step: Any  # a scalar; as of every leaf, tree transformations may put anything in its place
    params: Any
    opt_state: Any

    @classmethod
    def create(cls, params: Any, optimizer: optax.GradientTransformation) -> TrainState:
        return cls(step=jnp.zeros((), jnp.int32), params=params, opt_state=optimizer.init(params))


@flax.struct.dataclass
class Carried(TrainState):
    """What a checkpoint holds: the state, and the metrics since they were last written."""

    running: Any

    @classmethod
    def of(cls, state: TrainState, running: StepMetrics) -> Carried:
        return cls(state.step, state.params, state.opt_state, running)

    @property
    def state(self) -> TrainState:
        return TrainState(self.step, self.params, self.opt_state)


Update = Callable[[TrainState, StepMetrics, Batch], tuple[TrainState, StepMetrics, jax.Array]]


def make_update(
    loss: Loss,
    optimizer: optax.GradientTransformation,
    layout: Any = None,
    after_update: AfterUpdate = unchanged,
) -> Update:
    """Returns the jitted update: (state, running metrics, batch) -> (state, metrics, loss).

    State and metrics are donated. The loss is that of the global batch; over a batch that is split
    over devices XLA inserts the collectives.

    Args:
      layout: shardings of the three results. Left to XLA they could differ from those of the
        arguments, and the second call would be compiled again.
      after_update: (new parameters, the loss's terms) to the parameters that are kept: moves those
        the optimizer does not, such as a teacher that follows a student, or a running mean. Being
        parameters, they are checkpointed, laid out and resumed like all others.
    """

    def update(
        state: TrainState, running: StepMetrics, batch: Batch
    ) -> tuple[TrainState, StepMetrics, jax.Array]:
        (value, terms), grads = jax.value_and_grad(loss, has_aux=True)(state.params, batch)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = project_logit_scale(optax.apply_updates(state.params, updates))
        params = after_update(params, terms)
        metrics = StepMetrics.single_from_model_output(
            loss=value,
            grad_norm=optax.tree.norm(grads),
            logit_scale=params["clip"]["logit_scale"],
            **terms,
        )
        return TrainState(state.step + 1, params, opt_state), running.merge(metrics), value

    return jax.jit(update, donate_argnums=(0, 1), out_shardings=layout)
