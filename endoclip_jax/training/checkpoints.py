"""Checkpoints: the only module that knows Orbax.

A stage's folder holds `checkpoints/STEP/{state, meta}`. `state` is the training state; `meta` is
what a reader must know to use it: the model's configuration with activation and eps, how images
are prepared, the tokenizer's hash, the data's fingerprint, and the validation metrics at that step.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from endoclip_jax.errors import UserError

_KEEP_LATEST = 2


@dataclass(frozen=True)
class Best:
    """The validation metric that ranks a stage's checkpoints, and whether more is better.

    `step` stands for no choice: the newest checkpoint is the best.
    """

    metric: str
    larger: bool

    def rank(self, metrics: Mapping[str, float]) -> float:
        """Larger is better; a checkpoint without the metric ranks below all others."""
        value = metrics.get(self.metric, float("nan"))
        if np.isnan(value):
            return -float("inf")
        return value if self.larger else -value


class Checkpoints:
    """The checkpoints of one stage: the newest two and the best by validation are kept."""

    def __init__(self, stage_folder: Path, best: Best) -> None:
        self.folder = stage_folder / "checkpoints"
        self._best = best
        self._manager = ocp.CheckpointManager(
            self.folder.resolve(),
            item_names=("state", "meta"),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policies.AnyPreservationPolicy(
                    [
                        policies.LatestN(_KEEP_LATEST),
                        policies.BestN(
                            get_metric_fn=best.rank, n=1, keep_checkpoints_without_metrics=False
                        ),
                    ]
                ),
                best_fn=best.rank,
                enable_async_checkpointing=True,
            ),
        )

    def save(self, step: int, state: Any, meta: Mapping[str, Any]) -> None:
        """Writes in the background; the files take their final name only when whole."""
        if step in self._manager.all_steps():
            return
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(dict(meta))
            ),
            metrics={**meta.get("validation", {}), "step": float(step)},
        )

    def restore(self, like: Any) -> tuple[Any, dict[str, Any]] | None:
        """The newest state, laid out as `like` (arrays or shapes with shardings), with its meta."""
        step = self._manager.latest_step()
        if step is None:
            return None
        abstract = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), like
        )
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(abstract), meta=ocp.args.JsonRestore()
            ),
        )
        return restored.state, restored.meta

    def wait(self) -> None:
        self._manager.wait_until_finished()

    def close(self) -> None:
        self._manager.close()


def saved_steps(stage_folder: Path) -> list[int]:
    """Steps whose checkpoint is whole, ascending."""
    folder = stage_folder / "checkpoints"
    if not folder.is_dir():
        return []
    return sorted(
        int(entry.name)
        for entry in folder.iterdir()
        if entry.name.isdigit() and (entry / "meta").is_dir() and (entry / "state").is_dir()
    )


def read_meta(stage_folder: Path, step: int) -> dict[str, Any]:
    """The `meta` of one checkpoint."""
    path = stage_folder / "checkpoints" / str(step) / "meta" / "metadata"
    return json.loads(path.read_text())


def best_step(stage_folder: Path) -> int:
    """The step with the best validation metric; the newest where nothing was validated."""
    steps = saved_steps(stage_folder)
    if not steps:
        raise UserError(f"no checkpoint in {stage_folder}: run that stage first")
    metas = {step: read_meta(stage_folder, step) for step in steps}
    rule = metas[steps[-1]]["best"]
    best = Best(rule["metric"], rule["larger"])

    def rank(step: int) -> tuple[float, int]:
        return best.rank({**metas[step].get("validation", {}), "step": float(step)}), step

    return max(steps, key=rank)


def resolve_checkpoint(path: Path, which: str = "best") -> tuple[Path, int]:
    """(stage folder, step) named by a stage folder, its `checkpoints`, or one STEP folder.

    Args:
      which: for a folder of several steps, `best` by validation or `newest`.
    """
    path = path.expanduser()
    if path.name.isdigit() and (path / "meta").is_dir():
        return path.parent.parent, int(path.name)
    folder = path.parent if path.name == "checkpoints" else path
    steps = saved_steps(folder)
    if not steps:
        raise UserError(
            f"no checkpoint at {path}: give a stage's folder such as runs/default/stage3, "
            "or one step in its checkpoints folder"
        )
    return folder, best_step(folder) if which == "best" else steps[-1]


def load_params(stage_folder: Path, step: int) -> tuple[Any, dict[str, Any]]:
    """Parameters as NumPy arrays, wherever they were saved from, and the checkpoint's meta."""
    with ocp.CheckpointManager(
        (stage_folder / "checkpoints").resolve(),
        item_names=("state", "meta"),
        item_handlers={
            "state": ocp.PyTreeCheckpointHandler(),
            "meta": ocp.JsonCheckpointHandler(),
        },
        options=ocp.CheckpointManagerOptions(create=False),
    ) as manager:
        tree = dict(manager.item_metadata(step)["state"].tree["params"])
        restored = manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.PyTreeRestore(
                    item={"params": jax.tree.map(lambda _: 0, tree)},
                    restore_args={
                        "params": jax.tree.map(
                            lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree
                        )
                    },
                    partial_restore=True,
                )
            ),
        )
    return restored["state"]["params"], read_meta(stage_folder, step)
