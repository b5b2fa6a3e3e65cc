"""Runs the stages of one run, each from what the one before it left in the workdir."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from clu import parameter_overview

from endoclip_jax.data.selection import Selection
from endoclip_jax.data.transforms import PREPROCESSING
from endoclip_jax.errors import Stopped
from endoclip_jax.pipeline.losses import contrastive_of
from endoclip_jax.pipeline.run import (
    ROUND_1,
    ROUND_2,
    Run,
    best_step,
    cross_attention_of,
    initial_params,
    params_of,
)
from endoclip_jax.stages.attunement import attunement
from endoclip_jax.stages.cleansing import cleansing, select_frames
from endoclip_jax.stages.joined import joined
from endoclip_jax.stages.stage import PreparedStage
from endoclip_jax.stages.unification import unification
from endoclip_jax.training import checkpoints, processes
from endoclip_jax.training.accumulation import in_parts
from endoclip_jax.training.loop import Plan, train
from endoclip_jax.training.optimizer import Schedule, make_optimizer


def run_stage1(run: Run) -> None:
    settings = run.config.stage1
    params = initial_params(run)
    run.say(parameter_overview.get_parameter_overview(params["clip"], include_stats=False))
    selection = None
    for round_number, name in ((1, ROUND_1), (2, ROUND_2)):
        stage = cleansing(
            run.setting,
            round_number=round_number,
            selection=selection,
            global_batch=settings.global_batch,
            temperature=run.config.loss.temperature,
            rho=settings.rho,
        )
        frozen = [("clip", "text")] if settings.freeze_text else []
        fit(run, stage, params, "stage1", frozen)
        params = params_of(run, name)
        selection = _selected(run, round_number, params)


def _selected(run: Run, round_number: int, params: Mapping[str, Any]) -> Selection:
    path = run.selection_path(round_number)
    if processes.first(lambda: Selection.exists(path)):
        return Selection.load(path, run.setting.index)
    began = time.monotonic()
    name = f"stage1_round{round_number}"
    selection = select_frames(
        run.setting,
        params["clip"],
        rho=run.config.stage1.rho,
        rule=run.config.stage1.selection,
        round_number=round_number,
        checkpoint=f"{name}/{best_step(run, name)}",
        folder=run.folder(name) / "scoring",
        chunk=run.config.scoring.chunk,
    )

    def keep() -> None:
        selection.save(path)
        shutil.rmtree(run.folder(name) / "scoring")

    processes.first(keep)
    run.seconds[f"{name} scoring"] = time.monotonic() - began
    kept = int(np.sum(selection.kept))
    lost = selection.meta["unreadable_frames"]
    run.say(
        f"{name}: kept {kept} of {len(selection.kept)} frames of the positive patients"
        + (f"; {lost} more cannot be decoded" if lost else "")
    )
    return selection


def run_stage2(run: Run) -> None:
    settings = run.config.stage2
    params = params_of(run, ROUND_2)
    if settings.text_init == "clip":
        params["clip"]["text"] = initial_params(run)["clip"]["text"]
    stage = attunement(
        run.setting,
        selection=Selection.load(run.selection_path(2), run.setting.index),
        global_batch=settings.global_batch,
        target=settings.target,
        target_norm=settings.target_norm,
        temperature=run.config.loss.temperature,
        contrastive=contrastive_of(run, "stage2", run.mesh()),
    )
    fit(run, stage, params, "stage2")


def run_stage3(run: Run) -> None:
    settings = run.config.stage3
    cross_attention = cross_attention_of(run.config)
    params = params_of(run, "stage2")
    unit = jnp.ones((1, 1, run.config.model.embed_dim))
    seen = jnp.ones((1, 1), bool)
    variables = cross_attention.init(
        jax.random.key(run.config.seed), unit, seen, unit, seen, method="similarity"
    )
    params["cross"] = jax.device_get(variables.get("params", {}))
    stage = unification(
        run.setting,
        cross_attention,
        selection=Selection.load(run.selection_path(2), run.setting.index),
        global_batch=settings.global_batch,
        target=settings.target,
        target_norm=settings.target_norm,
        temperature=run.config.loss.temperature,
        max_images=settings.max_images,
        max_texts=settings.max_texts,
        include_single=settings.include_single,
        contrastive=contrastive_of(run, "stage3", run.mesh()),
    )
    fit(run, stage, params, "stage3")


def run_clip(run: Run) -> None:
    settings = run.config.clip
    stage = joined(
        run.setting,
        global_batch=settings.global_batch,
        temperature=run.config.loss.temperature,
        contrastive=contrastive_of(run, "clip", run.mesh()),
    )
    updates = sum(
        checkpoints.saved_steps(run.folder(name))[-1]
        for name in (ROUND_1, ROUND_2, "stage2", "stage3")
    )
    fit(run, stage, initial_params(run), "clip", steps=updates)


RUN_STAGE: dict[str, Callable[[Run], None]] = {
    "stage1": run_stage1,
    "stage2": run_stage2,
    "stage3": run_stage3,
    "clip": run_clip,
}


def fit(
    run: Run,
    stage: PreparedStage,
    params: Mapping[str, Any],
    section: str,
    frozen: Sequence[tuple[str, ...]] = (),
    steps: int | None = None,
) -> None:
    """Trains one stage (or round) as its section of the configuration says.

    Raises:
      Stopped: when asked to stop by SIGTERM, after saving.
    """
    settings, log = run.config[section], run.config.log
    params = {**params, "clip": dict(params["clip"])}
    if settings.logit_scale_init != "keep":
        params["clip"]["logit_scale"] = np.float32(float(settings.logit_scale_init))
    per_epoch = stage.batches.steps_per_epoch
    steps = settings.epochs * per_epoch if steps is None else steps
    schedule = Schedule(steps, settings.warmup_epochs * per_epoch, settings.learning_rate)
    processes.check_alike(
        {
            f"{stage.name}'s steps an epoch": per_epoch,
            f"{stage.name}'s patients left out": stage.batches.left_out_per_epoch,
            f"{stage.name}'s validation batches": (
                stage.validation.steps_per_epoch if stage.validation else 0
            ),
            "devices": jax.local_device_count(),
        }
    )
    for note in stage.notes:
        run.say(f"{stage.name}: {note}")
    run.say(
        f"{stage.name}: {steps} steps of {settings.global_batch}, {per_epoch} an epoch; "
        f"{stage.batches.left_out_per_epoch} patients sit out each epoch"
    )
    if settings.accumulate > 1:
        stage = replace(stage, combine=partial(in_parts, parts=settings.accumulate))
    outcome = train(
        stage,
        params,
        make_optimizer(schedule, settings.weight_decay, frozen),
        Plan(
            steps=steps,
            log_every=log.every_steps,
            validate_every=log.validate_epochs * per_epoch,
            save_every=log.save_epochs * per_epoch,
            best=checkpoints.Best(settings.best_metric, settings.best_is_larger),
            profile=log.profile,
            dtype=run.config.dtype,
            products=run.config.cpu_products,
        ),
        mesh=run.mesh(),
        folder=run.folder(stage.name),
        meta=checkpoint_meta(run, stage.name, section),
        say=run.say,
        stop=run.stop.reached,
        watchdog=processes.watchdog(),
    )
    run.seconds[stage.name] = outcome.seconds
    if not outcome.finished:
        raise Stopped(f"{stage.name} stopped at step {outcome.step} of {steps}")


def checkpoint_meta(run: Run, name: str, section: str) -> dict[str, Any]:
    """What a reader of a checkpoint has to know; a mismatch at load is an error, not a surprise."""
    return {
        "stage": name,
        "model": run.setting.model.config.to_dict(),
        "preprocessing": PREPROCESSING,
        "tokenizer": run.setting.tokenizer.sha256,
        "data": run.setting.index.fingerprint,
        "seed": run.config.seed,
        "config": run.config[section].to_dict(),
    }
