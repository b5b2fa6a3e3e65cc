"""What a run will take of disk and device memory, said before it begins."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from endoclip_jax.errors import UserError
from endoclip_jax.models.clip import CLIP
from endoclip_jax.pipeline.run import (
    FOLDERS_OF,
    cross_attention_of,
    mesh_of,
    prototype_head_of,
)
from endoclip_jax.stages.dino import FROZEN as DINO_FROZEN
from endoclip_jax.stages.dino import dino_params
from endoclip_jax.stages.sscd import FROZEN as SSCD_FROZEN
from endoclip_jax.training import checkpoints
from endoclip_jax.training.optimizer import Schedule, make_optimizer
from endoclip_jax.training.sharding import shardings
from endoclip_jax.training.state import TrainState

KEPT = 4  # the newest two, the best, and one that is being written


def state_bytes(config: ConfigDict, model: CLIP, stage: str, mesh: Mesh) -> tuple[int, int]:
    """Bytes of a stage's parameters and optimizer state: a device's share, and a checkpoint's all.

    Computed from shapes alone.

    Raises:
      UserError: for a mesh that does not divide the model.
    """
    settings = config[stage]
    frozen: Sequence[tuple[str, ...]] = {"dino": DINO_FROZEN, "sscd": SSCD_FROZEN}.get(stage, ())
    if settings.get("freeze_text", False):
        frozen = [("clip", "text")]
    optimizer = make_optimizer(Schedule(2, 1, 1e-3), settings.weight_decay, frozen)

    def state() -> TrainState:
        key = jax.random.key(0)
        size = model.config.vision.image_size
        pixels, ids = jnp.zeros((1, size, size, 3)), jnp.zeros((1, 8), jnp.int32)
        params: dict[str, Any] = {"clip": model.init(key, pixels, ids)["params"]}
        if stage == "stage3":
            unit, seen = jnp.ones((1, 1, config.model.embed_dim)), jnp.ones((1, 1), bool)
            variables = cross_attention_of(config).init(
                key, unit, seen, unit, seen, method="similarity"
            )
            params["cross"] = variables.get("params", {})
        if stage == "dino":
            params = dino_params(params["clip"], prototype_head_of(config), 0)
        return TrainState.create(params, optimizer)

    shapes = jax.eval_shape(state)
    leaves = jax.tree.leaves(shapes)
    placed = jax.tree.leaves(shardings(shapes, mesh))
    share = sum(
        math.prod(sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf, sharding in zip(leaves, placed, strict=True)
    )
    return share, sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)


def check_room(config: ConfigDict, model: CLIP, workdir: Path, stages: list[str]) -> str:
    """The line about disk and memory for the stages still to run.

    Raises:
      UserError: if the workdir's disk cannot carry their checkpoints.
    """
    mesh = mesh_of(config)
    states = {stage: state_bytes(config, model, stage, mesh) for stage in stages}
    needed = sum(
        max(0, KEPT * states[stage][1] - _held(workdir / name))
        for stage in stages
        for name in FOLDERS_OF[stage]
    )
    free = shutil.disk_usage(workdir).free
    share = max(share for share, _ in states.values())
    line = (
        f"{_size(share)} of parameters and optimizer state on each device; "
        f"checkpoints will take up to {_size(needed)} of the {_size(free)} free in {workdir}"
    )
    if needed > free:
        raise UserError(
            f"{line}: make room, or give a --workdir on a larger disk ({KEPT} checkpoints of each "
            "stage are counted)"
        )
    return line


def _held(folder: Path) -> int:
    steps = checkpoints.saved_steps(folder)
    files = (folder / "checkpoints").rglob("*") if steps else []
    return sum(path.stat().st_size for path in files if path.is_file())


def _size(number: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"
