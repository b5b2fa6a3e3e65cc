"""What a run is: one workdir, its configuration, its data and model, and what its stages left."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from endoclip_jax.configuration import flatten
from endoclip_jax.convert.fixture import check_installation, check_weights
from endoclip_jax.convert.source import read_weights
from endoclip_jax.convert.weights import fitted
from endoclip_jax.data.selection import Selection
from endoclip_jax.data.tokenizer import load_tokenizer
from endoclip_jax.demonstration import demonstration_data
from endoclip_jax.errors import UserError
from endoclip_jax.models import clip
from endoclip_jax.models.clip import CLIP, CLIPConfig
from endoclip_jax.models.cross_attention import CrossAttention
from endoclip_jax.models.prototypes import PrototypeHead
from endoclip_jax.shards.index import Index
from endoclip_jax.stages.cleansing import round_name
from endoclip_jax.stages.stage import Setting
from endoclip_jax.training import checkpoints, processes
from endoclip_jax.training.sharding import make_mesh
from endoclip_jax.training.stopping import StopRequest

ROUND_1, ROUND_2 = round_name(1), round_name(2)
FOLDERS_OF = {
    "stage1": (ROUND_1, ROUND_2),
    "stage2": ("stage2",),
    "stage3": ("stage3",),
    "clip": ("clip",),
    "dino": ("dino",),
    "sscd": ("sscd",),
}


def say(text: str) -> None:
    """A line of the job's log: process 0's."""
    if jax.process_index() == 0:
        print(text, flush=True)


@dataclass
class Run:
    """One workdir with everything that its stages share.

    Attributes:
      elsewhere: folders of stages that this run starts from and another workdir holds.
    """

    config: ConfigDict
    workdir: Path
    setting: Setting
    seconds: dict[str, float] = field(default_factory=dict)
    polyps: Path | None = None  # labelled set for malignancy
    stop: StopRequest = field(default_factory=StopRequest)
    elsewhere: Mapping[str, Path] = field(default_factory=dict)

    def folder(self, name: str) -> Path:
        return self.elsewhere.get(name, self.workdir / name)

    def selection_path(self, round_number: int) -> Path:
        return self.folder(round_name(round_number)) / "selection"

    def mesh(self) -> Mesh:
        return mesh_of(self.config)

    def say(self, text: str) -> None:
        say(text)


def open_run(config: ConfigDict, workdir: Path, stop: StopRequest) -> Run:
    """Opens the data (drawing the demonstration's if none is named), model and tokenizer.

    Raises:
      UserError: for data that cannot be opened, an installation that computes another CLIP, or
        processes that were started with different configurations or data.
    """
    processes.check_alike(_shared_keys(config) | {"jax": jax.__version__})
    mesh_of(config)  # a mesh that cannot be is refused before any work
    check_installation(config.model.activation)
    began = time.monotonic()
    polyps: Path | None = Path(config.eval.malignancy) if config.eval.malignancy else None
    shards = config.data.shards
    if not shards:
        drawn = processes.first(
            lambda: [
                str(folder)
                for folder in astuple(
                    demonstration_data(workdir / "data", seed=config.seed, **config.cohort)
                )
            ]
        )
        shards, polyps = drawn[0], polyps or Path(drawn[1])
    index = opened_alike(shards)
    model = CLIP(
        CLIPConfig.from_dict(config.model.to_dict()),
        dtype=jnp.dtype(config.dtype).type,
        remat=config.remat,
    )
    setting = Setting(
        index=index,
        model=model,
        tokenizer=load_tokenizer(),
        seed=config.seed,
        train_split=config.data.split,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        stop=stop.reached,
        step=processes.watchdog().step,
        rest=processes.watchdog().rest,
        say=say,
    )
    run = Run(config, workdir, setting, polyps=polyps, stop=stop)
    run.seconds["data"] = time.monotonic() - began
    return run


def mesh_of(config: ConfigDict) -> Mesh:
    """The mesh over all of the job's devices as configured."""
    return make_mesh(config.mesh.to_dict())


def _shared_keys(config: ConfigDict) -> dict[str, Any]:
    """All that must be the same in all processes: not a process's place, nor a folder's name."""
    keys: dict[str, Any] = json.loads(json.dumps(config.to_dict()))
    own = ("config.data.shards", "config.workdir")
    return {
        name: value
        for name, value in flatten(keys, "config.").items()
        if name not in own and not name.startswith("config.distributed.")
    }


def opened_alike(shards: str) -> Index:
    """The data set at a path that may be another in each process; its content must be the same."""
    opened: list[Index] = []

    def fingerprint() -> str:
        opened.append(Index.open(shards))
        return opened[0].fingerprint

    told = processes.everywhere(fingerprint)
    for place, other in enumerate(told):
        if other != told[0]:
            raise UserError(
                f"process {place} has another data set at {shards} (fingerprint {other}) than "
                f"process 0 ({told[0]}): give all processes the same shards"
            )
    return opened[0]


def is_done(run: Run, stage: str) -> bool:
    """Whether every part of a stage reached its last step and left what the next one needs."""
    for name in FOLDERS_OF[stage]:
        meta = checkpoints.newest_meta(run.folder(name))
        if meta is None or meta["step"] < meta["steps"]:
            return False
        if meta["data"] != run.setting.index.fingerprint:
            raise UserError(
                f"{run.folder(name)} was trained on another data set than "
                f"{run.setting.index.folder}: give another --workdir"
            )
    return stage != "stage1" or all(selection_fits(run, number) for number in (1, 2))


def selection_fits(run: Run, round_number: int) -> bool:
    """Whether the selection of a round is there and made with the weights that its folder holds.

    By the files as this process sees them.
    """
    folder = run.folder(round_name(round_number))
    weights = checkpoints.weights_checksum(folder, checkpoints.best_step(folder))
    return Selection.is_by(weights, run.selection_path(round_number))


def initial_params(run: Run) -> dict[str, Any]:
    """The towers a run starts from: `init.clip`, or CLIP's initialisation from the seed.

    Raises:
      UserError: for weights of another model than the configuration's, or that no longer give the
        logits they were written with.
    """
    model = run.setting.model
    if not run.config.init.clip:
        return {"clip": clip.initial_params(model, run.config.seed)}
    weights = read_weights(run.config.init.clip)
    check_weights(weights)
    weights = fitted(weights, model.config)
    for note in weights.notes:
        run.say(f"init.clip: {note}")
    return {"clip": dict(weights.params)}


def params_of(run: Run, name: str) -> dict[str, Any]:
    """The parameters a finished stage hands on: those of its best checkpoint.

    Raises:
      UserError: for a damaged one, with what to do.
    """
    try:
        return checkpoints.load_params(run.folder(name), best_step(run, name))[0]
    except checkpoints.Damaged as damage:
        folder = run.folder(name) / "checkpoints" / str(damage.step)
        raise UserError(
            f"{damage}: move {folder} away and run the same command again, which goes on from the "
            "checkpoint before it"
        ) from None


def best_step(run: Run, name: str) -> int:
    """The step of a stage's best checkpoint, as process 0 sees the files."""
    return int(processes.first(lambda: checkpoints.best_step(run.folder(name))))


def initial_cross(config: ConfigDict, key: jax.Array) -> dict[str, Any]:
    """Parameters that stage 3's cross-attention starts from; none where its mode has none."""
    unit, seen = jnp.ones((1, 1, config.model.embed_dim)), jnp.ones((1, 1), bool)
    module = cross_attention_of(config)
    variables = module.init(key, unit, seen, unit, seen, method="similarity")
    return dict(variables.get("params", {}))


def prototype_head_of(config: ConfigDict) -> PrototypeHead:
    """DINO's projection head as configured."""
    settings = config.dino
    return PrototypeHead(
        prototypes=settings.prototypes,
        hidden=settings.hidden,
        bottleneck=settings.bottleneck,
        dtype=jnp.dtype(config.dtype).type,
    )


def cross_attention_of(config: ConfigDict) -> CrossAttention:
    """The module of stage 3 as configured."""
    return CrossAttention(
        dim=config.model.embed_dim,
        mode=config.stage3.attention,
        qk_norm=config.stage3.qk_norm,
        residual=config.stage3.residual,
    )
