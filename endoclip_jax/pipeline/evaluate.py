"""Evaluates a finished run: results.json, the table in the terminal, and report/index.html."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from endoclip_jax.evaluation.evaluate import (
    TaskResult,
    evaluate_detection,
    evaluate_malignancy,
)
from endoclip_jax.evaluation.frame_selection import SelectionQuality, rule_quality
from endoclip_jax.evaluation.frame_sets import FolderFrames, FrameSet, SplitFrames
from endoclip_jax.evaluation.report import BASELINE, OURS, Findings, write_report
from endoclip_jax.evaluation.results import (
    Row,
    current_commit,
    describe_hardware,
    format_table,
    write_results,
)
from endoclip_jax.evaluation.statistics import Interval, difference_interval
from endoclip_jax.evaluation.subjects import Subject
from endoclip_jax.pipeline.pictures import draw_pictures
from endoclip_jax.pipeline.run import (
    FOLDERS_OF,
    ROUND_1,
    ROUND_2,
    Run,
    initial_params,
    params_of,
)
from endoclip_jax.records.manifest import UNKNOWN_POLYP
from endoclip_jax.stages import cases
from endoclip_jax.stages.scoring import score_frames
from endoclip_jax.training import checkpoints, processes

UNTRAINED = "untrained"
PRETRAINED = "CLIP (pre-trained)"
ROUND_1_ONLY = "Endo-CLIP, round 1"
STAGE_2_ONLY = "Endo-CLIP, stage 2"
STAGE_3_ONLY = "Endo-CLIP, stage 3"


def evaluate_run(run: Run) -> None:
    """Evaluates every model of the run and writes the results, in process 0."""
    params = {name: params_of(run, name) for name in (ROUND_1, ROUND_2, "stage2", "stage3", "clip")}
    params["start"] = initial_params(run)
    unwatched = replace(run.setting, process_index=0, process_count=1, step=lambda _doing: None)
    alone = replace(run, setting=unwatched)
    processes.first(lambda: _evaluate(alone, params))


def _evaluate(run: Run, params: dict[str, dict[str, Any]]) -> None:
    began = time.monotonic()
    tasks: dict[str, TaskResult] = {}
    notes: list[str] = []
    options = {
        "seed": run.config.seed,
        "draws": run.config.eval.bootstrap_draws,
        "with_few_shot": run.config.eval.few_shot,
    }
    start_name = PRETRAINED if run.config.init.clip else UNTRAINED
    frames = detection_frames(run)
    if frames is None:
        notes.append("detection is not measured: the test split has no frame labels")
    else:
        names = {
            OURS: ROUND_2, ROUND_1_ONLY: ROUND_1, STAGE_3_ONLY: "stage3",
            BASELINE: "clip", start_name: "start",
        }  # fmt: skip
        subjects = [_subject(run, name, params[folder]) for name, folder in names.items()]
        tasks["detection"] = evaluate_detection(subjects, frames, run.setting.tokenizer, **options)
    if run.polyps is None:
        notes.append("malignancy is not measured: no labelled polyps (config.eval.malignancy)")
    else:
        names = {OURS: "stage3", STAGE_2_ONLY: "stage2", BASELINE: "clip", start_name: "start"}
        subjects = [_subject(run, name, params[folder]) for name, folder in names.items()]
        tasks["malignancy"] = evaluate_malignancy(
            subjects, FolderFrames.open(run.polyps), run.setting.tokenizer, **options
        )

    held_out = held_out_scores(run, params)
    selections = {name: quality for name, (quality, *_) in held_out.items()}
    rows = [row for task in tasks.values() for row in task.rows]
    rows += [row for name, quality in selections.items() for row in selection_rows(name, quality)]
    notes += [note for task in tasks.values() for note in task.notes]
    pictures, captions = draw_pictures(run, tasks, held_out, params["stage3"])
    seconds = run_seconds(run) | {"evaluation": time.monotonic() - began}
    commit, hardware = current_commit(), describe_hardware()
    write_results(
        run.workdir / "results.json",
        rows,
        seed=run.config.seed,
        seconds=seconds,
        commit=commit,
        hardware=hardware,
    )
    report = write_report(
        run.workdir / "report" / "index.html",
        Findings(
            rows=rows,
            seed=run.config.seed,
            commit=commit,
            hardware=hardware,
            seconds=seconds,
            card=run.setting.index.card,
            config=json.dumps(run.config.to_dict(), indent=1, sort_keys=True),
            synthetic=not run.config.data.shards,
            figures=pictures,
            captions=captions,
            selections=selections,
            differences=_differences(tasks, run.config.seed),
            notes=notes,
        ),
    )
    run.say(format_table(rows))
    for name, quality in selections.items():
        run.say(
            f"selection {name}: {quality.precision.value:.3f} of the kept frames show a polyp, "
            f"{quality.lift:.1f} times the prevalence of {quality.prevalence:.3f}"
        )
    for note in notes:
        run.say(f"note: {note}")
    run.say("  ".join(f"{phase} {took:.0f} s" for phase, took in seconds.items()))
    run.say(f"report: {report}")


def detection_frames(run: Run) -> FrameSet | None:
    """The labelled folder that was named, or the test split where its frames' truth is known."""
    if run.config.eval.detection:
        return FolderFrames.open(Path(run.config.eval.detection))
    frames = SplitFrames(run.setting.index, run.setting.index.rows("test"))
    return frames if frames.rows.size and _known(run, frames.rows).any() else None


def _known(run: Run, rows: np.ndarray) -> np.ndarray:
    index = run.setting.index
    frames = np.concatenate([index.frame_rows(int(row)) for row in rows])
    return np.asarray(index.frames["polyp"][frames]) != UNKNOWN_POLYP


def _subject(run: Run, name: str, params: Mapping[str, Any]) -> Subject:
    """A model of the run; with `cross` parameters, scored through its trained value kernels."""
    image = text = None
    if "cross" in params and run.config.stage3.attention != "none":
        image = params["cross"]["text_to_image"]["value"]["kernel"]
        text = params["cross"]["image_to_text"]["value"]["kernel"]
    return Subject(name, run.setting.model, params["clip"], image, text)


def held_out_scores(
    run: Run, params: Mapping[str, Any]
) -> dict[str, tuple[SelectionQuality, np.ndarray, np.ndarray, np.ndarray]]:
    """The selection rule applied to held-out positive patients, after each round.

    Returns for each round its quality, and frames, scores and which were kept.
    """
    index, settings = run.setting.index, run.config.stage1
    rows = cases.positives(index, index.rows("test"))
    if not rows.size or not _known(run, rows).any():
        return {}
    frames = np.concatenate([index.frame_rows(int(row)) for row in rows])
    found = {}
    for name, folder in (("after round 1", ROUND_1), ("after round 2", ROUND_2)):
        scores, scored = score_frames(run.setting, params[folder]["clip"], frames)
        quality, kept = rule_quality(
            scores,
            np.asarray(index.frames["record"][scored], np.int64),
            np.asarray(index.frames["polyp"][scored], np.int64),
            rho=settings.rho,
            rule=settings.selection,
            seed=run.config.seed,
        )
        found[name] = (quality, scored, scores, kept)
    return found


def selection_rows(name: str, quality: SelectionQuality) -> list[Row]:
    """Precision and recall of the kept frames as rows of `results.json`."""
    polyps = round(quality.prevalence * (quality.frames - quality.unknown))
    counts = {"n_pos": polyps, "n_neg": quality.frames - quality.unknown - polyps}
    return [
        Row(
            OURS, "selection", name, metric, spread.value, spread.low, spread.high,
            chance=quality.prevalence if metric == "precision" else None, **counts,
        )
        for metric, spread in (("precision", quality.precision), ("recall", quality.recall))
    ]  # fmt: skip


def _differences(tasks: Mapping[str, TaskResult], seed: int) -> dict[tuple[str, str], Interval]:
    """Endo-CLIP minus plain CLIP on the same frames, patients resampled jointly."""
    return {
        (name, metric): difference_interval(
            metric,
            task.scores[OURS],
            task.scores[BASELINE],
            task.labels,
            task.truth.patients,
            seed,
        )
        for name, task in tasks.items()
        if task.truth is not None
        for metric in ("auroc", "aupr")
    }


def run_seconds(run: Run) -> dict[str, float]:
    """Seconds of each phase, those of earlier calls read off their checkpoints."""
    seconds = {"data": run.seconds.get("data", 0.0)}
    for folder in (name for folders in FOLDERS_OF.values() for name in folders):
        meta = checkpoints.newest_meta(run.folder(folder))
        seconds[folder] = float(meta["seconds"]) if meta else 0.0
        scoring = f"{folder} scoring"
        if scoring in run.seconds:
            seconds[scoring] = run.seconds[scoring]
    return seconds
