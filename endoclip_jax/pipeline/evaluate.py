"""Evaluates a finished run: results.json, the table in the terminal, and report/index.html."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from endoclip_jax.data.transforms import PREPROCESSING
from endoclip_jax.evaluation.analysis import (
    Analysis,
    attention_rows,
    by_parts,
    calibrations,
    merged,
    retrieval_rows,
)
from endoclip_jax.evaluation.evaluate import (
    TaskResult,
    evaluate_detection,
    evaluate_malignancy,
)
from endoclip_jax.evaluation.examinations import (
    FrameFeatures,
    attention_against_truth,
    attention_within,
    retrieval,
)
from endoclip_jax.evaluation.frame_selection import (
    SelectionQuality,
    rule_quality,
    selection_rows,
)
from endoclip_jax.evaluation.frame_sets import FolderFrames, FrameSet, SplitFrames
from endoclip_jax.evaluation.report import BASELINE, OURS, Findings, write_report
from endoclip_jax.evaluation.results import (
    current_commit,
    describe_hardware,
    format_table,
    write_results,
)
from endoclip_jax.evaluation.statistics import Interval, difference_interval
from endoclip_jax.evaluation.subjects import Subject
from endoclip_jax.pipeline.labelled import subject_of
from endoclip_jax.pipeline.patients import kept_attention, shown_patients
from endoclip_jax.pipeline.pictures import draw_pictures
from endoclip_jax.pipeline.run import (
    FOLDERS_OF,
    ROUND_1,
    ROUND_2,
    Run,
    initial_params,
    params_of,
)
from endoclip_jax.pipeline.scoring import score_frames
from endoclip_jax.records.manifest import UNKNOWN_POLYP
from endoclip_jax.stages import cases
from endoclip_jax.training import checkpoints, processes

UNTRAINED = "untrained"
PRETRAINED = "CLIP (pre-trained)"
ROUND_1_ONLY = "Endo-CLIP, round 1"
STAGE_1_ONLY = "Endo-CLIP, stage 1"
STAGE_2_ONLY = "Endo-CLIP, stage 2"
STAGE_3_ONLY = "Endo-CLIP, stage 3"
STAGES = {"after stage 1": STAGE_1_ONLY, "after stage 2": STAGE_2_ONLY, "after stage 3": OURS}


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
        names = {
            OURS: "stage3", STAGE_2_ONLY: "stage2", STAGE_1_ONLY: ROUND_2,
            BASELINE: "clip", start_name: "start",
        }  # fmt: skip
        subjects = [_subject(run, name, params[folder]) for name, folder in names.items()]
        tasks["malignancy"] = evaluate_malignancy(
            subjects, FolderFrames.open(run.polyps), run.setting.tokenizer, **options
        )

    held_out = held_out_scores(run, params)
    selections = {name: quality for name, (quality, *_) in held_out.items()}
    stage3 = _subject(run, STAGE_3_ONLY, params["stage3"])
    found = _analyses(run, tasks, params)
    features = _held_out_features(run, tasks)
    if features is not None:
        found["examinations"] = _examinations(run, stage3, features)
    rows = [row for task in tasks.values() for row in task.rows]
    rows += [row for name, q in selections.items() for row in selection_rows(name, q, OURS)]
    rows += [row for analysis in found.values() for row in analysis.rows]
    notes += [note for task in tasks.values() for note in task.notes]
    notes += [note for analysis in found.values() for note in analysis.notes]
    attention = kept_attention(run, stage3, held_out)
    pictures = draw_pictures(
        run, tasks, held_out, attention,
        {task: analysis.curves for task, analysis in found.items()}, features, STAGES,
    )  # fmt: skip
    patients = shown_patients(run, _subject(run, OURS, params[ROUND_2]), held_out, attention)
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
            figures=pictures.shown,
            captions=pictures.captions,
            patients=patients,
            model=model_facts(run, params["stage3"]),
            selections=selections,
            differences=_differences(tasks, run.config.seed),
            notes=notes,
        ),
    )
    run.say(format_table(rows))
    for name, quality in selections.items():
        if not np.isfinite(quality.precision.value):
            continue
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
    return subject_of(name, run.setting.model, params, run.config.stage3.to_dict())


def held_out_scores(
    run: Run, params: Mapping[str, Any]
) -> dict[str, tuple[SelectionQuality, np.ndarray, np.ndarray, np.ndarray]]:
    """The selection rule applied to held-out positive patients, after each round.

    Returns for each round its quality, and frames, scores and which were kept.
    """
    index, settings = run.setting.index, run.config.stage1
    rows = cases.positives(index, index.rows("test"))
    if not rows.size:
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


def _analyses(
    run: Run, tasks: Mapping[str, TaskResult], params: Mapping[str, dict[str, Any]]
) -> dict[str, Analysis]:
    """Calibration and results by part of the headline model in each task."""
    spread = {"seed": run.config.seed, "draws": run.config.eval.bootstrap_draws}
    folder_of = {"detection": ROUND_2, "malignancy": "stage3"}
    return {
        name: merged(
            [
                calibrations(_subject(run, OURS, params[folder_of[name]]), task, **spread),
                by_parts(OURS, task, **spread),
            ]
        )
        for name, task in tasks.items()
    }


def _held_out_features(run: Run, tasks: Mapping[str, TaskResult]) -> FrameFeatures | None:
    """Stage 3's features of the test split, where detection was measured on it."""
    if "detection" not in tasks or run.config.eval.detection:
        return None
    task = tasks["detection"]
    assert task.truth is not None
    return FrameFeatures(task.features[STAGE_3_ONLY], task.truth.frames)


def _examinations(run: Run, stage3: Subject, features: FrameFeatures) -> Analysis:
    """Retrieval and attention of stage 3 against truth, on the test split."""
    index, tokenizer = run.setting.index, run.setting.tokenizer
    spread = {"seed": run.config.seed, "draws": run.config.eval.bootstrap_draws}
    rows = index.rows("test")
    searched = retrieval(stage3, tokenizer, index, rows, features, **spread)
    within = attention_within(stage3, tokenizer, index, cases.multi_polyp(index, rows), features)
    judged = attention_against_truth(index, within, **spread)
    return Analysis(retrieval_rows(OURS, searched) + attention_rows(OURS, judged))


def model_facts(run: Run, params: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the report's model card says of this very model."""
    config, index = run.setting.model.config, run.setting.index
    train = index.rows("train")
    positive = cases.positives(index, train)
    frames = int(index.records["num_frames"][train].sum())
    counts = {part: sum(np.size(x) for x in jax.tree.leaves(tree)) for part, tree in params.items()}
    return [
        ("architecture", f"CLIP: ViT {config.vision.image_size} px in patches of "
         f"{config.vision.patch_size}, {config.vision.layers} layers of width "
         f"{config.vision.width}; text {config.text.layers} layers of width {config.text.width}; "
         f"embeddings of {config.embed_dim}; {config.activation}"),
        ("parameters", ", ".join(f"{part} {count:,}" for part, count in counts.items())),
        ("started from", run.config.init.clip or f"random weights, seed {run.config.seed}"),
        ("trained on", f"{len(train):,} examinations ({len(positive):,} with a polyp), "
         f"{frames:,} frames, data set {index.fingerprint}"),
        ("attention of stage 3", str(run.config.stage3.attention)),
        ("a frame before the model", "; ".join(f"{k}: {v}" for k, v in PREPROCESSING.items())),
        ("licence", "code: Apache-2.0; weights: as their data allow"),
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
