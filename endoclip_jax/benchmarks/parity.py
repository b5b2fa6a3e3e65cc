"""Parity of training with PyTorch: the same weights, the same batches, 50 updates on either side.

The JAX side is what a run uses: the stages' batches and losses, the optimizer and the update. The
PyTorch side is `tests/reference/torch`, written from the paper's equations. The suite compares
every loss, and at the first, every tenth and the last step every gradient and every parameter.
Everything is float32; two correct programs differ in the last bits, and training lets the
difference grow: the table says how far.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from endoclip_jax.benchmarks.cases import Case, all_cases
from endoclip_jax.benchmarks.material import SIZES, Material, material
from endoclip_jax.errors import UserError
from endoclip_jax.evaluation.results import current_commit, describe_hardware
from endoclip_jax.files import replace_file
from endoclip_jax.stages.stage import PreparedStage
from endoclip_jax.training.metrics import StepMetrics
from endoclip_jax.training.optimizer import Schedule, make_optimizer
from endoclip_jax.training.sharding import data_mesh, replicate, shard_batch
from endoclip_jax.training.state import TrainState, make_update

Arrays = Mapping[str, np.ndarray]

SCHEMA = 1
LOSS_LIMIT = 1e-4  # relative, at every step
FIRST_GRADIENT_LIMIT = 1e-4  # of every tensor at the first step, where the weights are equal
WEIGHT_DECAY = 0.2
_MEASURED_EVERY = 10  # steps from one comparison of gradients and parameters to the next
_WARMUP_SHARE = 5  # a fifth of the updates warms up: both halves of the schedule are walked
# A tensor whose gradient is small beside the others' is measured against this share of the whole
# gradient's length: on paper the keys' biases have none, and that of the logit scale is a
# difference of nearly equal sums. The limit is then a millionth of the whole, a few last bits.
_SMALL_TENSOR = 1e-2
_NOTHING = 1e-30  # of 0 over 0, where neither side has moved, makes 0


@dataclass(frozen=True)
class StepDifference:
    """How far the two sides are apart at one step; all but the losses are relative.

    Gradients and parameters are None at the steps in between, where only losses are compared.

    Attributes:
      loss, reference_loss: of JAX and of PyTorch, before the update.
      loss_difference, excess_difference: as shares of the loss.
      gradient: length of the difference over the gradient's length, all parameters as one vector.
      worst_gradient: the largest such share of a single tensor, `worst_tensor`.
      parameters: length of the difference after the update over the way gone since the start.
    """

    step: int
    loss: float
    reference_loss: float
    loss_difference: float
    excess_difference: float
    gradient: float | None = None
    worst_gradient: float | None = None
    worst_tensor: str | None = None
    parameters: float | None = None


@dataclass(frozen=True)
class CaseResult:
    """One case, step by step."""

    case: Case
    seconds: float
    steps: tuple[StepDifference, ...]

    @property
    def agrees(self) -> bool:
        """Losses at every step, and each tensor's gradient at the first."""
        first = self.steps[0].worst_gradient
        return (
            all(step.loss_difference <= LOSS_LIMIT for step in self.steps)
            and all(step.excess_difference <= LOSS_LIMIT for step in self.steps)
            and first is not None
            and first <= FIRST_GRADIENT_LIMIT
        )


def load_reference() -> ModuleType:
    """The PyTorch reference, from the clone this package runs from.

    Raises:
      UserError: without PyTorch, or where the package was installed without its tests.
    """
    tests = Path(__file__).resolve().parents[2] / "tests"
    if not (tests / "reference" / "torch").is_dir():
        raise UserError(
            "the parity suite needs the PyTorch reference in tests/reference: run it from a clone"
        )
    try:
        importlib.import_module("torch")
    except ImportError:
        raise UserError(
            "the parity suite compares with PyTorch, which is not installed: "
            "pip install --constraint constraints.txt --editable '.[torch]'"
        ) from None
    if str(tests) not in sys.path:
        sys.path.append(str(tests))
    return importlib.import_module("reference.torch.session")


class Ours:
    """A stage's training as a run does it, one update at a time."""

    def __init__(
        self, stage: PreparedStage, parameters: Mapping[str, Any], schedule: Schedule
    ) -> None:
        optimizer = optax.chain(_remembered(), make_optimizer(schedule, WEIGHT_DECAY))
        self._mesh = data_mesh(jax.devices()[:1])
        self._update = make_update(stage.loss, optimizer)
        self._state = replicate(TrainState.create(parameters, optimizer), self._mesh)

    def step(self, host_batch: Mapping[str, np.ndarray]) -> tuple[float, float, Any]:
        """Loss, excess and the tree of gradients of a batch, then one update."""
        batch = shard_batch(host_batch, self._mesh)
        running = replicate(StepMetrics.empty(), self._mesh)
        self._state, running, loss = self._update(self._state, running, batch)
        gradients = jax.device_get(self._state.opt_state[0])
        return float(loss), running.means()["excess"], gradients

    def parameters(self) -> Any:
        """The tree of parameters as it stands, on the host."""
        return jax.device_get(self._state.params)


def _remembered() -> optax.GradientTransformation:
    """Changes nothing; its state is the gradients as they came, before clipping."""
    return optax.GradientTransformation(
        init=lambda params: jax.tree.map(jnp.zeros_like, params),
        update=lambda gradients, _state, _params=None: (gradients, gradients),
    )


def compare(
    case: Case, data: Material, *, steps: int, learning_rate: float, reference: Any
) -> CaseResult:
    """Trains `case` on both sides for `steps` updates from the same weights and batches.

    `reference`: what `load_reference` gives.
    """
    began = time.monotonic()
    start, warmup = data.parameters(case), steps // _WARMUP_SHARE
    stage = data.stage(case)
    ours = Ours(stage, start, Schedule(steps, warmup, learning_rate))
    theirs = reference.Session(
        reference.Options(**asdict(case)),
        data.size.model.to_dict(),
        start,
        sentences=data.sentences,
        peak=learning_rate,
        warmup_steps=warmup,
        total_steps=steps,
    )
    first, named = theirs.parameters(), reference.named
    differences = []
    for step in range(1, steps + 1):
        loaded = stage.complete(stage.batches.at(step - 1))
        shown = stage.on_device({name: jnp.asarray(value) for name, value in loaded.items()})
        batch = {name: np.asarray(value) for name, value in shown.items()}
        loss, excess, tree = ours.step(batch)
        wanted = theirs.step(batch)
        measured: dict[str, Any] = {}
        if step in (1, steps) or step % _MEASURED_EVERY == 0:
            gradients = named(tree)
            worst, tensor = _worst(gradients, wanted.gradients)
            measured = {
                "gradient": _apart(gradients, wanted.gradients),
                "worst_gradient": worst,
                "worst_tensor": tensor,
                "parameters": _apart(named(ours.parameters()), theirs.parameters(), origin=first),
            }
        differences.append(
            StepDifference(
                step=step,
                loss=loss,
                reference_loss=wanted.loss,
                loss_difference=abs(loss - wanted.loss) / abs(wanted.loss),
                excess_difference=abs(excess - wanted.excess) / abs(wanted.loss),
                **measured,
            )
        )
    return CaseResult(case, time.monotonic() - began, tuple(differences))


def _apart(ours: Arrays, theirs: Arrays, origin: Arrays | None = None) -> float:
    """`|ours - theirs| / |theirs - origin|` with all tensors as one vector."""
    difference = _length(ours[name] - theirs[name] for name in theirs)
    moved = theirs if origin is None else {name: theirs[name] - origin[name] for name in theirs}
    return difference / max(_length(moved.values()), _NOTHING)


def _worst(ours: Arrays, theirs: Arrays) -> tuple[float, str]:
    """The tensor whose gradients differ most, relative to its own length."""
    least = max(_SMALL_TENSOR * _length(theirs.values()), _NOTHING)
    shares = {
        name: _length([ours[name] - array]) / max(_length([array]), least)
        for name, array in theirs.items()
    }
    name = max(shares, key=lambda name: shares[name])
    return shares[name], name


def _length(arrays: Iterable[np.ndarray | np.floating]) -> float:
    """Of several arrays (or scalars) as one vector."""
    return float(np.sqrt(sum(np.sum(np.square(a, dtype=np.float64)) for a in arrays)))


def format_table(results: Sequence[CaseResult]) -> str:
    """One line a case: the losses' difference early, midway and last, gradients, parameters."""
    header = ("case", "loss", "step 1", "midway", "last", "worst", "gradient 1", "last",
              "parameters", "agrees")  # fmt: skip
    lines: list[tuple[str, ...]] = [header]

    def shown(value: float | None) -> str:
        return "-" if value is None else f"{value:.1e}"

    for result in results:
        steps = result.steps
        losses = [step.loss_difference for step in steps]
        lines.append(
            (
                result.case.label,
                f"{steps[-1].loss:.5f}",
                *(shown(losses[i]) for i in (0, (len(steps) - 1) // 2, -1)),
                shown(max(losses)),
                shown(steps[0].gradient),
                shown(steps[-1].gradient),
                shown(steps[-1].parameters),
                "yes" if result.agrees else "NO",
            )
        )
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def write(path: Path, results: Sequence[CaseResult], about: Mapping[str, Any]) -> None:
    """Writes machine, versions, commit, seed and every step of every case, whole or not at all."""
    versions = {name: importlib.import_module(name).__version__ for name in ("torch", "jax", "flax",
                "optax", "transformers", "numpy")}  # fmt: skip
    content = {
        "schema": SCHEMA,
        "suite": "parity",
        "commit": current_commit(),
        "hardware": describe_hardware(),
        "versions": versions,
        **about,
        "limits": {"loss": LOSS_LIMIT, "first gradient": FIRST_GRADIENT_LIMIT},
        "cases": [{"agrees": result.agrees, **asdict(result)} for result in results],
    }
    replace_file(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def main(argv: Sequence[str], folder: Path) -> int:
    """Runs the suite, prints the table; 1 if a case does not agree."""
    parser = argparse.ArgumentParser(prog="benchmark.py --suite=parity", description=__doc__)
    parser.add_argument("--size", choices=sorted(SIZES), default="tiny", help="of model and batch")
    parser.add_argument("--steps", type=int, default=50, help="updates of each case")
    parser.add_argument("--seed", type=int, default=0, help="of weights, patients and batches")
    parser.add_argument(
        "--only",
        default="",
        help="cases whose line in the table begins so, as stage2 or `stage3 l1`",
    )
    parser.add_argument("--out", type=Path, help="JSON file; default: under runs/benchmarks")
    options = parser.parse_args(argv)
    cases = [case for case in all_cases() if case.label.startswith(options.only)]
    if not cases:
        raise UserError(f"no case of the parity suite begins with {options.only!r}")
    if options.steps < 1:
        raise UserError(f"--steps={options.steps} trains nothing: give at least 1")
    reference = load_reference()
    size = SIZES[options.size]
    path = options.out or folder / f"parity-{options.size}.json"
    about = {
        "size": options.size,
        "model": size.model.to_dict(),
        "seed": options.seed,
        "steps": options.steps,
        "learning_rate": size.learning_rate,
    }
    results: list[CaseResult] = []
    with tempfile.TemporaryDirectory() as scratch, jax.default_matmul_precision("highest"):
        data = material(Path(scratch), size, seed=options.seed)
        for number, case in enumerate(cases, 1):
            result = compare(
                case,
                data,
                steps=options.steps,
                learning_rate=size.learning_rate,
                reference=reference,
            )
            results.append(result)
            write(path, results, about)  # an interrupted run leaves what it has
            verdict = "agrees" if result.agrees else "DOES NOT AGREE"
            print(
                f"{number}/{len(cases)} {case.label}: {verdict}, {result.seconds:.0f} s", flush=True
            )
    print(f"\n{format_table(results)}\n")
    print("loss: relative difference; gradient, parameters: of their length, of the way gone")
    print(f"results: {path}")
    return 0 if all(result.agrees for result in results) else 1
