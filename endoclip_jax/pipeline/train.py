"""Runs the stages of one run, each from what the one before it left in the workdir."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from clu import parameter_overview

from endoclip_jax.data.selection import Selection
from endoclip_jax.data.transforms import PREPROCESSING
from endoclip_jax.errors import Stopped, UserError
from endoclip_jax.pipeline.losses import contrastive_of
from endoclip_jax.pipeline.run import (
    ROUND_1,
    ROUND_2,
    Run,
    best_step,
    cross_attention_of,
    initial_cross,
    initial_params,
    params_of,
    prototype_head_of,
    selection_fits,
)
from endoclip_jax.pipeline.scoring import score_frames, score_in_chunks
from endoclip_jax.stages.attunement import attunement
from endoclip_jax.stages.cleansing import cleansing, round_name, select_frames
from endoclip_jax.stages.dino import FROZEN as DINO_FROZEN
from endoclip_jax.stages.dino import dino, dino_params
from endoclip_jax.stages.joined import joined
from endoclip_jax.stages.noise import ExtractionNoise
from endoclip_jax.stages.sscd import FROZEN as SSCD_FROZEN
from endoclip_jax.stages.sscd import sscd
from endoclip_jax.stages.stage import PreparedStage
from endoclip_jax.stages.unification import unification
from endoclip_jax.training import checkpoints, integrity, processes
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
            score=partial(score_frames, run.setting),
        )
        frozen = [("clip", "text")] if settings.freeze_text else []
        fit(run, stage, params, "stage1", frozen)
        params = params_of(run, name)
        selection = _selected(run, round_number, params)


def _selected(run: Run, round_number: int, params: Mapping[str, Any]) -> Selection:
    path, name = run.selection_path(round_number), round_name(round_number)
    if processes.first(partial(selection_fits, run, round_number)):
        return Selection.load(path, run.setting.index)
    if processes.first(partial(Selection.exists, path)):
        run.say(
            f"{name}: the selection there was made with other weights than the checkpoint has: "
            "all frames are scored again"
        )
    began = time.monotonic()
    step, folder = best_step(run, name), run.folder(name)
    weights = checkpoints.weights_checksum(folder, step)
    score = partial(
        score_in_chunks, run.setting, params["clip"],
        folder=folder / "scoring", chunk=run.config.scoring.chunk, weights=weights,
    )  # fmt: skip
    with processes.watchdog().within(name):
        selection = select_frames(
            run.setting,
            score,
            rho=run.config.stage1.rho,
            rule=run.config.stage1.selection,
            round_number=round_number,
            checkpoint=f"{name}/{step}",
            weights=weights,
        )
    processes.first(partial(_keep, selection, path, folder / "scoring"))
    run.seconds[f"{name} scoring"] = time.monotonic() - began
    kept = int(np.sum(selection.kept))
    lost = selection.meta["unreadable_frames"]
    run.say(
        f"{name}: kept {kept} of {len(selection.kept)} frames of the positive patients"
        + (f"; {lost} more cannot be decoded" if lost else "")
    )
    return selection


def _keep(selection: Selection, path: Path, scoring: Path) -> None:
    """Writes a selection and takes away the chunks of scores it was made from.

    Raises:
      UserError: if it cannot be written; the chunks stay.
    """
    try:
        selection.save(path)
    except OSError as error:
        raise UserError(
            f"the selection cannot be written to {path.parent} ({error.strerror or error}): make "
            "room and run the same command again, which goes on with the scores that are there"
        ) from error
    shutil.rmtree(scoring)


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
        noise=_extraction_noise(run),
    )
    fit(run, stage, params, "stage2")


def run_stage3(run: Run) -> None:
    settings = run.config.stage3
    cross_attention = cross_attention_of(run.config)
    params = params_of(run, "stage2" if settings.start == "stage2" else ROUND_2)
    params["cross"] = jax.device_get(initial_cross(run.config, jax.random.key(run.config.seed)))
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
        noise=_extraction_noise(run),
    )
    fit(run, stage, params, "stage3")


def _extraction_noise(run: Run) -> ExtractionNoise:
    settings = run.config.attributes
    return ExtractionNoise(settings.noise_drop, settings.noise_flip, run.config.seed)


def run_clip(run: Run) -> None:
    settings = run.config.clip
    stage = joined(
        run.setting,
        global_batch=settings.global_batch,
        temperature=run.config.loss.temperature,
        contrastive=contrastive_of(run, "clip", run.mesh()),
    )
    fit(run, stage, initial_params(run), "clip", steps=updates_of_stages(run))


def updates_of_stages(run: Run) -> int:
    """How often the three stages together updated: what every other row of Table 1 gets."""
    return sum(
        checkpoints.saved_steps(run.folder(name))[-1]
        for name in (ROUND_1, ROUND_2, "stage2", "stage3")
    )


def run_dino(run: Run) -> None:
    settings = run.config.dino
    head = prototype_head_of(run.config)
    steps = _updates_of_baseline(run)
    stage = dino(
        run.setting,
        head,
        steps=steps,
        **{
            name: settings[name]
            for name in (
                "global_batch",
                "epochs",
                "local_crops",
                "local_size",
                "momentum",
                "temperature",
                "temperature_start",
                "temperature_epochs",
                "frozen_epochs",
            )
        },
    )
    start = initial_params(run)["clip"]
    params = jax.device_get(dino_params(start, head, run.config.seed))
    fit(run, stage, params, "dino", DINO_FROZEN, steps)


def run_sscd(run: Run) -> None:
    settings = run.config.sscd
    stage = sscd(
        run.setting,
        global_batch=settings.global_batch,
        temperature=settings.temperature,
        entropy_weight=settings.entropy_weight,
        mix_odds=settings.mix_odds,
    )
    fit(run, stage, initial_params(run), "sscd", SSCD_FROZEN, _updates_of_baseline(run))


def _updates_of_baseline(run: Run) -> int | None:
    """Those of the stages where these are trained too; None: the baseline's own epochs."""
    return None if run.config.goal in ("dino", "sscd") else updates_of_stages(run)


RUN_STAGE: dict[str, Callable[[Run], None]] = {
    "stage1": run_stage1,
    "stage2": run_stage2,
    "stage3": run_stage3,
    "clip": run_clip,
    "dino": run_dino,
    "sscd": run_sscd,
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
    facts: dict[str, Any] = {
        f"{stage.name}'s steps an epoch": per_epoch,
        f"{stage.name}'s patients left out": stage.batches.left_out_per_epoch,
        f"{stage.name}'s validation batches": (
            stage.validation.steps_per_epoch if stage.validation else 0
        ),
        "devices": jax.local_device_count(),
    }
    if jax.process_count() > 1:
        facts[f"{stage.name}'s initial weights"] = integrity.joint(integrity.host_checksums(params))
    processes.check_alike(facts)
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
        ),
        mesh=run.mesh(),
        folder=run.folder(stage.name),
        meta=checkpoint_meta(run, stage.name, section),
        after_update=stage.after_update,
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
