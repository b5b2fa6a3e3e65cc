"""The training loop: one function for every stage, and it knows none of them by name.

The order inside a step is a contract: read the batch, update, note the losses, then — at their
intervals — log, validate, save. A checkpoint at step n is the state after n updates, so the step
alone says where in the data to go on.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from endoclip_jax.errors import UserError
from endoclip_jax.training.checkpoints import Best, Checkpoints, newest_meta
from endoclip_jax.training.metrics import MetricWriter, StepMetrics
from endoclip_jax.training.profile import Profile
from endoclip_jax.training.progress import Progress
from endoclip_jax.training.samples import SampleDigest
from endoclip_jax.training.sharding import (
    distribute,
    replicate,
    replicated,
    row_by_row,
    shard_batch,
    shardings,
)
from endoclip_jax.training.state import (
    AfterUpdate,
    Batch,
    Carried,
    Loss,
    TrainState,
    make_update,
    unchanged,
)
from endoclip_jax.training.throughput import Throughput, model_flops, peak_flops
from endoclip_jax.training.watchdog import Watchdog

HostBatch = dict[str, np.ndarray]


@runtime_checkable
class Batches(Protocol):
    """Batches addressed by position: the same step gives the same batch on any machine."""

    @property
    def steps_per_epoch(self) -> int: ...

    def iterate(self, start_step: int) -> Iterator[HostBatch]: ...


@runtime_checkable
class Stage(Protocol):
    """What a method must bring: its batches, its loss, and what to watch on held-out patients."""

    @property
    def name(self) -> str: ...

    @property
    def batches(self) -> Batches: ...

    @property
    def validation(self) -> Batches | None: ...

    @property
    def complete(self) -> Callable[[HostBatch], HostBatch]:
        """Adds to a loader's batch what the loss needs (texts, labels, attributes)."""

    @property
    def on_device(self) -> Callable[[Batch], Batch]:
        """What is done to a training batch on the device before the loss, such as augmentation;
        rows do nothing to each other."""

    @property
    def loss(self) -> Loss:
        """The loss of the global batch, and its terms `entropy` and `excess`; numbers among further
        terms are shown at validation."""

    @property
    def validate(self) -> Callable[[Any], dict[str, float]]:
        """Further measures on held-out patients; may be empty."""


@dataclass(frozen=True)
class Plan:
    """How long to train and when to look up.

    `log_every`, `validate_every` and `save_every` are in steps; a validation always saves. Of
    `profile` steps a trace is written; `dtype` is that of the products, by which rates are judged.
    """

    steps: int
    log_every: int
    validate_every: int
    save_every: int
    best: Best
    profile: int = 0
    dtype: str = "float32"


@dataclass(frozen=True)
class Outcome:
    """Where a call of `train` ended; `finished` is False when it was asked to stop."""

    step: int
    finished: bool
    seconds: float


class NonFiniteLoss(UserError):
    """Training met a loss that is not a number; the last checkpoint is from before it."""


def train(
    stage: Stage,
    params: Any,
    optimizer: optax.GradientTransformation,
    plan: Plan,
    *,
    mesh: Mesh,
    folder: Path,
    meta: Mapping[str, Any],
    after_update: AfterUpdate = unchanged,
    say: Callable[[str], None] = print,
    stop: Callable[[], bool] = lambda: False,
    watchdog: Watchdog | None = None,
) -> Outcome:
    """Trains a stage to the end of its plan, from its newest checkpoint if there is one.

    Args:
      params: initial parameters; ignored where a checkpoint is found.
      folder: the stage's folder: checkpoints, metrics and event files go there.
      meta: stored with every checkpoint beside step, seconds, validation and the digest of the
        sample ids seen so far.
      after_update: how parameters move that are not the optimizer's (`make_update`).
      stop: asked once a step, by all processes alike: whether to save and stop after it.
      watchdog: is told of each step.

    Raises:
      NonFiniteLoss: naming the step and the frames of the batch.
      UserError: for a checkpoint of other data, another model or configuration, or one that cannot
        be written.
    """
    checkpoints = Checkpoints(folder, plan.best, say)
    state = distribute(TrainState.create(params, optimizer), mesh)
    everywhere = replicated(mesh)
    layout = shardings(state, mesh), everywhere, everywhere
    update = make_update(stage.loss, optimizer, layout, after_update)
    running = replicate(StepMetrics.empty(), mesh)
    _check_continues(newest_meta(folder), meta, folder)
    restored = checkpoints.restore(Carried.of(state, running))
    start, seconds_before, samples = 0, 0.0, SampleDigest()
    if restored is not None:
        carried, saved = restored
        state, running = carried.state, carried.running
        start, seconds_before = saved["step"], saved["seconds"]
        samples = SampleDigest(saved["samples"])
        say(f"{stage.name}: resumes at step {start} of {plan.steps}")
    writes = jax.process_index() == 0
    writer = MetricWriter(folder, resume_step=start, writes=writes)
    progress = Progress(stage.name, start, plan.steps, shown=writes)
    on_device = row_by_row(stage.on_device, mesh)
    validation_loss = jax.jit(stage.loss)
    losses = _FiniteLosses()
    began = time.monotonic()
    step, stopping = start, False
    watchdog = watchdog or Watchdog(0)
    profile = Profile(
        folder / "profile", steps=plan.profile if writes else 0, start=start, total=plan.steps,
        say=say,
    )  # fmt: skip
    throughput: Throughput | None = None

    with closing(checkpoints), closing(writer), closing(profile):
        batches = stage.batches.iterate(start)
        while step < plan.steps and not stopping:
            watchdog.step(f"{stage.name}, step {step + 1} of {plan.steps}")
            host_batch = next(batches)
            samples.add(step, host_batch["frame"])
            batch = on_device(shard_batch(stage.complete(host_batch), mesh))
            with profile.step(step):
                state, running, loss = update(state, running, batch)
            step += 1
            profile.done(step, loss)
            if throughput is None:
                jax.block_until_ready(loss)
                say(f"{stage.name}: first step after {time.monotonic() - began:.1f} s")
                throughput = _throughput(stage.loss, state.params, batch, mesh, plan.dtype)
                throughput.start(step)
            losses.note(step, loss, host_batch["frame"])
            last, stopping = step == plan.steps, stop()

            if step % plan.log_every == 0 or last:
                values = running.means()
                running = replicate(StepMetrics.empty(), mesh)
                writer.write(step, "train", values, samples=f"{samples.value():016x}")
                progress.show(step, values)
                writer.show(step, "speed", throughput.report(step))
            validated: dict[str, float] = {}
            if step % plan.validate_every == 0 or last:
                with watchdog.within(f"{stage.name}, validation at step {step}"):
                    validated = _validate(stage, validation_loss, state.params, mesh, watchdog)
                watchdog.step(f"{stage.name}, after the validation at step {step}")
                writer.write(step, "validation", validated)
            if validated or step % plan.save_every == 0 or last or stopping:
                losses.settle()
                if not _all_finite(state.params):
                    raise NonFiniteLoss(_non_finite("a parameter", step, host_batch["frame"]))
                checkpoints.save(
                    step,
                    Carried.of(state, running),
                    {
                        **meta,
                        "step": step,
                        "steps": plan.steps,
                        "seconds": seconds_before + time.monotonic() - began,
                        "samples": samples.value(),
                        "best": {"metric": plan.best.metric, "larger": plan.best.larger},
                        "validation": validated,
                    },
                )
            if step % plan.log_every == 0 or validated:
                throughput.start(step)  # neither validation nor saving is a step
        close = getattr(batches, "close", None)
        if close is not None:
            close()
        losses.settle()
        checkpoints.wait()
    watchdog.rest()
    progress.close()
    return Outcome(step, step == plan.steps, seconds_before + time.monotonic() - began)


def _throughput(loss: Loss, params: Any, batch: Any, mesh: Mesh, dtype: str) -> Throughput:
    kind = mesh.devices.flat[0].device_kind
    return Throughput(model_flops(loss, params, batch), mesh.size, peak_flops(kind, dtype))


def _check_continues(
    saved: Mapping[str, Any] | None, meta: Mapping[str, Any], folder: Path
) -> None:
    """Refuses to go on from a checkpoint of other data, another model or configuration."""
    for key, value in json.loads(json.dumps(dict(meta))).items():
        if saved is not None and saved.get(key) != value:
            raise UserError(
                f"the checkpoint of step {saved['step']} in {folder} has another `{key}` than this "
                f"run ({saved.get(key)!r}, not {value!r}): give another --workdir"
            )


def _validate(
    stage: Stage, loss: Loss, params: Any, mesh: Mesh, watchdog: Watchdog
) -> dict[str, float]:
    """Means of the stage's loss and terms over held-out patients, and the stage's own measures.

    The watchdog rests before and after: what comes first may compile.
    """
    watchdog.rest()
    values = dict(stage.validate(params))
    if stage.validation is None:
        return values
    totals: dict[str, list[float]] = {}
    batches, number = stage.validation.iterate(0), stage.validation.steps_per_epoch
    for place in range(number):
        watchdog.step(f"batch {place + 1} of {number}")
        batch = shard_batch(stage.complete(next(batches)), mesh)
        value, terms = loss(params, batch)
        for name, term in {"loss": value, **terms}.items():
            if term.ndim == 0:  # an array is meant for `after_update`
                totals.setdefault(name, []).append(float(term))
    close = getattr(batches, "close", None)
    if close is not None:
        close()
    watchdog.rest()
    return values | {name: float(np.mean(terms)) for name, terms in totals.items()}


class _FiniteLosses:
    """Looks at each loss two steps late, so that checking never makes the device wait."""

    _LAG = 2

    def __init__(self) -> None:
        self._pending: deque[tuple[int, jax.Array, np.ndarray]] = deque()

    def note(self, step: int, loss: jax.Array, frames: np.ndarray) -> None:
        self._pending.append((step, loss, frames))
        while len(self._pending) > self._LAG:
            self._check()

    def settle(self) -> None:
        """Checks what is still pending, as before a checkpoint."""
        while self._pending:
            self._check()

    def _check(self) -> None:
        step, loss, frames = self._pending.popleft()
        if not np.isfinite(float(loss)):
            raise NonFiniteLoss(_non_finite("the loss", step, frames))


@jax.jit
def _all_finite(tree: Any) -> jax.Array:
    """Whether no number in it is NaN or infinite: a finite loss may have other gradients."""
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


def _non_finite(what: str, step: int, frames: np.ndarray) -> str:
    ids = ", ".join(str(frame) for frame in np.ravel(frames)[:32])
    return (
        f"{what} is not finite at step {step}; the batch's frame rows are {ids}; the last "
        "checkpoint is from before it: look at these frames, or lower the learning rate, and "
        "start again"
    )
