"""Metrics of training: CLU collections of (sum, count), written as JSON lines and events."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.struct
from clu import metrics as clu_metrics


@flax.struct.dataclass
class StepMetrics(clu_metrics.Collection):
    """Means over the steps since they were last written.

    `loss` is the stage's loss, `entropy` that of its target (the floor no training can pass) and
    `excess` their difference: what training can remove.
    """

    loss: clu_metrics.Average.from_output("loss")  # type: ignore[valid-type]
    entropy: clu_metrics.Average.from_output("entropy")  # type: ignore[valid-type]
    excess: clu_metrics.Average.from_output("excess")  # type: ignore[valid-type]
    grad_norm: clu_metrics.Average.from_output("grad_norm")  # type: ignore[valid-type]
    logit_scale: clu_metrics.LastValue.from_output("logit_scale")  # type: ignore[valid-type]

    def means(self) -> dict[str, float]:
        """The collection as plain numbers."""
        return {name: float(value) for name, value in self.compute().items()}


class MetricWriter:
    """Appends to `metrics.jsonl` and to TensorBoard events in one folder; process 0 only writes."""

    def __init__(self, folder: Path, *, resume_step: int, writes: bool) -> None:
        """Rows of steps after `resume_step` belong to an interrupted run and are taken out."""
        self._writes = writes
        if not writes:
            return
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "metrics.jsonl"
        kept = []
        if path.exists():
            kept = [line for line in path.read_text().splitlines() if _step(line) <= resume_step]
        path.write_text("".join(line + "\n" for line in kept))
        self._lines = path.open("a")
        self._events = _event_writer(folder, purge_step=resume_step + 1)

    def write(
        self, step: int, split: str, values: Mapping[str, float], samples: str | None = None
    ) -> None:
        """A row of numbers; `samples`, the digest of all sample ids so far, goes with the lines."""
        if not self._writes:
            return
        row = {"step": step, "split": split, **values}
        if samples is not None:
            row["samples"] = samples
        self._lines.write(json.dumps(row) + "\n")
        self._lines.flush()
        for name, value in values.items():
            self._events.add_scalar(f"{split}/{name}", value, step)

    def show(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Numbers that are never the same twice, such as times: to the events alone."""
        if self._writes:
            for name, value in values.items():
                self._events.add_scalar(f"{split}/{name}", value, step)

    def close(self) -> None:
        if self._writes:
            self._lines.close()
            self._events.close()


def _event_writer(folder: Path, purge_step: int) -> Any:
    """A writer of TensorBoard events, imported without the torch that it loads where it finds it.

    Torch takes seconds and serves only what is not written here.
    """
    hidden = sys.modules.setdefault("torch", None)  # type: ignore[arg-type]
    try:
        from tensorboardX import SummaryWriter
    finally:
        if hidden is None:
            del sys.modules["torch"]
    return SummaryWriter(str(folder), purge_step=purge_step)


def _step(line: str) -> int:
    """The step of a row; a row cut short by a crash counts as later than everything."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError):
        return 2**62


def read_metrics(folder: Path) -> list[dict]:
    """The rows of a folder's `metrics.jsonl`, in order."""
    path = folder / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
