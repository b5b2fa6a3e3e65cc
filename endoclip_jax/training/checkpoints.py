"""Checkpoints: the only module that knows Orbax.

A stage's folder holds `checkpoints/STEP/{state, meta}`. `state` is the training state; `meta` is
what a reader must know to use it: the model's configuration with activation and eps, how images
are prepared, the tokenizer's hash, the data's fingerprint, the configuration with its seed (from
which, with the step, all randomness follows), the validation metrics at that step, and checksums of
every array. A damaged checkpoint is moved to the stage's `damaged` folder when training goes on.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers as policies

from endoclip_jax.errors import UserError
from endoclip_jax.training.integrity import (
    checksums,
    difference,
    host_checksums,
    joint,
    text_checksum,
)

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


class Damaged(UserError):
    """A checkpoint that is not what was written."""

    def __init__(self, stage_folder: Path, step: int, why: str) -> None:
        super().__init__(f"the checkpoint of step {step} in {stage_folder} is damaged ({why})")
        self.step = step


class Checkpoints:
    """The checkpoints of one stage: the newest two and the best by validation are kept."""

    def __init__(
        self, stage_folder: Path, best: Best, say: Callable[[str], None] = lambda _: None
    ) -> None:
        """Opens the folder for writing; damaged checkpoints are set aside, and `say` says which."""
        self.folder = stage_folder / "checkpoints"
        damaged = _find_damaged(stage_folder)
        _together(f"{stage_folder} is read")
        if jax.process_index() == 0:
            for damage in damaged:
                _set_aside(stage_folder, damage, say)
        _together(f"{stage_folder} is sound")
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
                cleanup_tmp_directories=True,  # of a process that was killed while it wrote
            ),
        )

    def save(self, step: int, state: Any, meta: Mapping[str, Any]) -> None:
        """Writes in the background; the files take their final name only when whole.

        Raises:
          UserError: if this checkpoint, or the one before it, cannot be written.
        """
        if step in self._manager.all_steps():
            return
        sealed = _sealed({**meta, "checksums": checksums(state)})
        with self._writing():
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(sealed)
                ),
                metrics={**meta.get("validation", {}), "step": float(step)},
            )

    def restore(self, like: Any) -> tuple[Any, dict[str, Any]] | None:
        """The newest state, laid out as `like` (arrays or shapes with shardings), with its meta.

        Raises:
          UserError: if a whole checkpoint cannot be laid out so.
        """
        step = self._manager.latest_step()
        if step is None:
            return None
        abstract = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), like
        )
        try:
            state = self._manager.restore(
                step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
            ).state
        except Exception as error:
            _unless_others_are_lost(error)
            raise UserError(
                f"the checkpoint of step {step} in {self.folder} cannot be restored as this run's "
                f"state ({_reason(error)}): give another --workdir"
            ) from error
        return state, read_meta(self.folder.parent, step)

    def wait(self) -> None:
        """Until everything is written; raises as `save` does."""
        with self._writing():
            self._manager.wait_until_finished()

    def close(self) -> None:
        with self._writing():
            self._manager.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """What goes wrong in the background, said in one sentence at the next call."""
        try:
            yield
        except Exception as error:
            _unless_others_are_lost(error)
            whole = ", ".join(map(str, saved_steps(self.folder.parent))) or "none yet"
            raise UserError(
                f"a checkpoint could not be written to {self.folder} ({_reason(error)}); those "
                f"there are whole (steps: {whole}): make room and run the same command again"
            ) from error


def _unless_others_are_lost(error: Exception) -> None:
    """Raises what JAX says of a barrier that another process never reached: no file is at fault."""
    if jax.process_count() > 1 and isinstance(error, jax.errors.JaxRuntimeError):
        raise error


def _reason(error: BaseException) -> str:
    """What the system said; of a storage library's long message the one line that matters."""
    for number in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EROFS, errno.EACCES):
        if os.strerror(number) in str(error) or getattr(error, "errno", None) == number:
            return os.strerror(number)
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}"


def _sealed(meta: Mapping[str, Any]) -> dict[str, Any]:
    """`meta` with a checksum of itself."""
    plain = json.loads(json.dumps(dict(meta)))
    return {**plain, "seal": text_checksum(json.dumps(plain, sort_keys=True))}


def _find_damaged(stage_folder: Path) -> list[Damaged]:
    """Damaged checkpoints, newest first: down to the newest whole one everything is read.

    Of those older than that only the small files are, which opening the folder needs.
    """
    damaged = []
    found_whole = False
    for step in reversed(saved_steps(stage_folder)):
        try:
            meta = read_meta(stage_folder, step)
            _read_small_files(stage_folder, step)
            if not found_whole:
                _read_state(stage_folder, step, meta)
            found_whole = True
        except Damaged as damage:
            damaged.append(damage)
    return damaged


def _set_aside(stage_folder: Path, damage: Damaged, say: Callable[[str], None]) -> None:
    """Moves a damaged checkpoint to the stage's `damaged` folder and says what is used instead."""
    aside = stage_folder / "damaged" / str(damage.step)
    shutil.rmtree(aside, ignore_errors=True)  # of an earlier time at the same step
    aside.parent.mkdir(exist_ok=True)
    (stage_folder / "checkpoints" / str(damage.step)).rename(aside)
    older = [step for step in saved_steps(stage_folder) if step < damage.step]
    instead = f"step {older[-1]} is next" if older else "there is no older one"
    say(f"{damage}: moved to {aside}, {instead}")


def _together(what: str) -> None:
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)


def saved_steps(stage_folder: Path) -> list[int]:
    """Steps whose checkpoint was written to its end, ascending."""
    folder = stage_folder / "checkpoints"
    if not folder.is_dir():
        return []
    return sorted(
        int(entry.name)
        for entry in folder.iterdir()
        if entry.name.isdigit() and (entry / "meta").is_dir() and (entry / "state").is_dir()
    )


def read_meta(stage_folder: Path, step: int) -> dict[str, Any]:
    """The `meta` of one checkpoint.

    Raises:
      Damaged: if it is not as it was written.
    """
    path = stage_folder / "checkpoints" / str(step) / "meta" / "metadata"
    try:
        meta = json.loads(path.read_bytes())
        seal = meta.pop("seal")
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise Damaged(stage_folder, step, f"its meta cannot be read: {error}") from None
    if seal != text_checksum(json.dumps(meta, sort_keys=True)):
        raise Damaged(stage_folder, step, "its meta is not what was written")
    return meta


def newest_meta(stage_folder: Path) -> dict[str, Any] | None:
    """The `meta` of the newest checkpoint that has a sound one."""
    for step in reversed(saved_steps(stage_folder)):
        try:
            return read_meta(stage_folder, step)
        except Damaged:
            continue
    return None


def _read_small_files(stage_folder: Path, step: int) -> None:
    """What Orbax reads beside the arrays: the metrics that rank, and the arrays' descriptions."""
    folder = stage_folder / "checkpoints" / str(step)
    for path in (folder / "metrics" / "metrics", *(folder / "state").glob("array_metadatas/*")):
        try:
            json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise Damaged(
                stage_folder, step, f"{path.relative_to(folder)} cannot be read: {error}"
            ) from None


def best_step(stage_folder: Path) -> int:
    """The step with the best validation metric; the newest where nothing was validated."""
    steps = saved_steps(stage_folder)
    if not steps:
        raise UserError(f"no checkpoint in {stage_folder}: run that stage first")
    metas = {}
    for step in steps:
        with suppress(Damaged):  # the others decide; loading it would name the damage
            metas[step] = read_meta(stage_folder, step)
    if not metas:
        raise UserError(f"every checkpoint in {stage_folder} is damaged: run that stage again")
    rule = metas[max(metas)]["best"]
    best = Best(rule["metric"], rule["larger"])

    def rank(step: int) -> tuple[float, int]:
        return best.rank({**metas[step].get("validation", {}), "step": float(step)}), step

    return max(metas, key=rank)


def weights_checksum(stage_folder: Path, step: int) -> str:
    """Of a checkpoint's parameters, as its meta recorded them.

    Raises:
      Damaged: if the meta is.
    """
    recorded = read_meta(stage_folder, step)["checksums"]
    return joint({name: value for name, value in recorded.items() if name.startswith("params/")})


def resolve_checkpoint(path: Path) -> tuple[Path, int]:
    """(stage folder, step) named by a stage folder, its `checkpoints`, or one STEP folder.

    Of a folder of several steps it is the best by validation.
    """
    path = path.expanduser()
    if path.name.isdigit() and (path / "meta").is_dir():
        return path.parent.parent, int(path.name)
    folder = path.parent if path.name == "checkpoints" else path
    if not saved_steps(folder):
        raise UserError(
            f"no checkpoint at {path}: give a stage's folder such as runs/default/stage3, "
            "or one step in its checkpoints folder"
        )
    return folder, best_step(folder)


def load_params(stage_folder: Path, step: int) -> tuple[Any, dict[str, Any]]:
    """Parameters as NumPy arrays, wherever they were saved from, and the checkpoint's meta.

    Raises:
      Damaged: if they are not what was written.
    """
    meta = read_meta(stage_folder, step)
    return _read_state(stage_folder, step, meta, "params")["params"], meta


def _read_state(
    stage_folder: Path, step: int, meta: Mapping[str, Any], only: str | None = None
) -> dict[str, Any]:
    """The state, or its part `only`, as NumPy arrays, compared with the checksums in `meta`."""
    try:
        state = _read_arrays(stage_folder, step, only)
    except Exception as error:  # Orbax, TensorStore and JSON have no exception in common
        _unless_others_are_lost(error)
        raise Damaged(stage_folder, step, _reason(error)) from error
    recorded = {
        name: value
        for name, value in meta["checksums"].items()
        if only is None or name.startswith(f"{only}/")
    }
    why = difference(host_checksums(state), recorded)
    if why is not None:
        raise Damaged(stage_folder, step, why)
    return state


def _read_arrays(stage_folder: Path, step: int, only: str | None) -> dict[str, Any]:
    folder = (stage_folder / "checkpoints" / str(step) / "state").resolve()
    handler = ocp.PyTreeCheckpointHandler()
    with ocp.Checkpointer(handler) as reader:
        tree = dict(handler.metadata(folder).tree)
        if only is not None:
            tree = {only: tree[only]}
        return reader.restore(
            folder,
            args=ocp.args.PyTreeRestore(
                item=jax.tree.map(lambda _: 0, tree),
                restore_args=jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree),
                partial_restore=True,
            ),
        )
