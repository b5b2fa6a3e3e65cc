"""What a run is: one workdir, its configuration, its data and model, and what its stages left."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

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
from endoclip_jax.shards.index import Index
from endoclip_jax.stages.stage import Setting
from endoclip_jax.training import checkpoints

ROUND_1, ROUND_2 = "stage1_round1", "stage1_round2"
FOLDERS_OF = {
    "stage1": (ROUND_1, ROUND_2),
    "stage2": ("stage2",),
    "stage3": ("stage3",),
    "clip": ("clip",),
}


@dataclass
class Run:
    """One workdir with everything that its stages share."""

    config: ConfigDict
    workdir: Path
    setting: Setting
    seconds: dict[str, float] = field(default_factory=dict)
    polyps: Path | None = None  # labelled set for malignancy

    def folder(self, name: str) -> Path:
        return self.workdir / name

    def selection_path(self, round_number: int) -> Path:
        return self.folder(f"stage1_round{round_number}") / "selection"

    def say(self, text: str) -> None:
        if jax.process_index() == 0:
            print(text, flush=True)


def open_run(config: ConfigDict, workdir: Path) -> Run:
    """Opens the data (drawing the demonstration's if none is named), model and tokenizer.

    Raises:
      UserError: for data that cannot be opened, or an installation that computes another CLIP.
    """
    check_installation(config.model.activation)
    began = time.monotonic()
    polyps: Path | None = Path(config.eval.malignancy) if config.eval.malignancy else None
    shards = config.data.shards
    if not shards:
        drawn = demonstration_data(workdir / "data", seed=config.seed, **config.cohort)
        shards, polyps = drawn.shards, polyps or drawn.polyps
    model = CLIP(
        CLIPConfig.from_dict(config.model.to_dict()),
        dtype=jnp.dtype(config.dtype).type,
        remat=config.remat,
    )
    setting = Setting(
        index=Index.open(shards),
        model=model,
        tokenizer=load_tokenizer(),
        seed=config.seed,
        train_split=config.data.split,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    run = Run(config, workdir, setting, polyps=polyps)
    run.seconds["data"] = time.monotonic() - began
    return run


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
    return stage != "stage1" or all(Selection.exists(run.selection_path(r)) for r in (1, 2))


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
    """The parameters a finished stage hands on: those of its best checkpoint."""
    params, _ = checkpoints.load_params(run.folder(name), checkpoints.best_step(run.folder(name)))
    return params


def cross_attention_of(config: ConfigDict) -> CrossAttention:
    """The module of stage 3 as configured."""
    return CrossAttention(
        dim=config.model.embed_dim,
        mode=config.stage3.attention,
        qk_norm=config.stage3.qk_norm,
        residual=config.stage3.residual,
    )
