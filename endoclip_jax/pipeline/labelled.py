"""Evaluates a checkpoint, or two in pairs, apart from any run: on labelled frames or shards."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from endoclip_jax.data.labelled import LABELS_FILE
from endoclip_jax.data.tokenizer import load_tokenizer
from endoclip_jax.errors import UserError
from endoclip_jax.evaluation import analysis, examinations, figures
from endoclip_jax.evaluation.endoreport import PUBLISHED, read_protocol
from endoclip_jax.evaluation.evaluate import (
    BENIGN,
    MALIGNANT,
    TaskResult,
    evaluate_detection,
    evaluate_malignancy,
)
from endoclip_jax.evaluation.frame_selection import rule_quality, selection_rows
from endoclip_jax.evaluation.frame_sets import FolderFrames, FrameSet, SplitFrames, SplitPolyps
from endoclip_jax.evaluation.listing import format_rest
from endoclip_jax.evaluation.prompts import PROMPTS, Prompts, read_prompts
from endoclip_jax.evaluation.results import Row, format_table, write_results
from endoclip_jax.evaluation.subjects import Subject
from endoclip_jax.models.clip import CLIP, CLIPConfig, initial_params
from endoclip_jax.models.cross_attention import CrossAttention
from endoclip_jax.records.manifest import UNKNOWN_POLYP
from endoclip_jax.shards.index import CARD_FILE, Index
from endoclip_jax.stages import cases
from endoclip_jax.training import checkpoints

TASKS = {"detection": evaluate_detection, "malignancy": evaluate_malignancy}


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="evaluate.py",
        description="Evaluates a checkpoint on labelled frames or on prepared shards.",
    )
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, help="a stage's folder or a step")
    add("--second", type=Path, help="another checkpoint, compared in pairs with the first")
    add("--data", type=Path, required=True, help="a folder with labels.csv, or prepared shards")
    add("--split", default="test", help="of prepared shards: train, validation or test (default)")
    add("--protocol", choices=sorted(PUBLISHED), help="refuses a set of other counts")
    add("--prompts", type=Path, help="a JSON file of prompt sets, in place of the built-in ones")
    add(
        "--specificity", type=float, default=0.9,
        help="of the operating point; its threshold comes from validation or from other folds",
    )  # fmt: skip
    add(
        "--probe", choices=("folds", "train"), default="folds",
        help="full linear probe: by patient folds, or (shards) trained on the training split",
    )  # fmt: skip
    add("--rho", type=float, default=0.21, help="share of frames that selection keeps (shards)")
    add("--out", type=Path, help="where results.json and figures go; default: nowhere")
    add("--seed", type=int, default=0, help="of bootstrap, folds and few-shot draws")
    add("--draws", type=int, default=1000, help="of the bootstrap")
    add("--untrained", action="store_true", help="also the same model with its initial weights")
    return parser.parse_args(argv)


def load_subject(path: Path, name: str) -> Subject:
    """A model from one of our checkpoints, refused if its tokenizer is not this one.

    Raises:
      UserError: where there is no checkpoint, or it was trained with another tokenizer.
    """
    folder, step = checkpoints.resolve_checkpoint(path)
    params, meta = checkpoints.load_params(folder, step)
    if meta["tokenizer"] != load_tokenizer().sha256:
        raise UserError(f"{path} was trained with another tokenizer than this version's")
    model = CLIP(CLIPConfig.from_dict(meta["model"]))
    return subject_of(name, model, params, meta["config"])


def subject_of(
    name: str, model: CLIP, params: Mapping[str, Any], settings: Mapping[str, Any]
) -> Subject:
    """A model from its parameters; `settings` are stage 3's where it has trained an attention."""
    mode = settings.get("attention", "none")
    if mode == "none" or "cross" not in params:
        return Subject(name, model, params["clip"])
    cross = params["cross"]
    module = CrossAttention(
        dim=model.config.embed_dim,
        mode=mode,
        qk_norm=settings["qk_norm"],
        residual=settings["residual"],
    )
    return Subject(
        name,
        model,
        params["clip"],
        cross["text_to_image"]["value"]["kernel"],
        cross["image_to_text"]["value"]["kernel"],
        (module, cross),
    )


def untrained(subject: Subject, seed: int) -> Subject:
    """The same architecture with its initial weights: what it gets without learning."""
    return Subject("untrained", subject.model, initial_params(subject.model, seed))


@dataclass(frozen=True)
class Material:
    """What there is to evaluate on: the frames of each task, and the shards they are from.

    `validation` and `training` are the same tasks' frames in the other splits, where thresholds and
    the linear probe come from.
    """

    frames: Mapping[str, FrameSet]
    validation: Mapping[str, FrameSet]
    training: Mapping[str, FrameSet]
    index: Index | None = None
    rows: np.ndarray | None = None


def evaluate_labelled(options: argparse.Namespace) -> None:
    """Runs whatever the data allows, prints it, and writes it where it was asked to."""
    began = time.monotonic()
    if not 0 < options.specificity < 1:
        raise UserError(f"--specificity={options.specificity} is no share between 0 and 1")
    prompts = PROMPTS if options.prompts is None else read_prompts(options.prompts)
    material = find_material(options)
    subjects = load_subjects(options)
    rows: list[Row] = []
    notes: list[str] = []
    pictures: dict[str, Any] = {}
    notes += unnamed_patients(material)
    for task, frames in material.frames.items():
        result = _evaluated(task, subjects, frames, prompts[task], options, few_shot=True)
        found = _task_analysis(task, subjects, result, material, prompts[task], options)
        rows += result.rows + found.rows
        notes += result.notes + found.notes
        scores = {name: result.scores[name] for name in (s.name for s in subjects)}
        pictures[f"roc_{task}"] = lambda s=scores, r=result: figures.roc_pr_curves(s, r.labels)
        pictures[f"calibration_{task}"] = lambda c=found.curves: figures.reliability_curves(c)
        if task == "detection" and material.index is not None:
            within = _examinations(subjects, result, material, options)
            rows += within.rows
            notes += within.notes
    print(format_table(rows))
    print("\n" + format_rest(rows))
    for note in notes:
        print(f"note: {note}")
    if options.out is not None:
        seconds = {"evaluation": time.monotonic() - began}
        write_results(options.out / "results.json", rows, seed=options.seed, seconds=seconds)
        for name, draw in pictures.items():
            figures.save(draw(), options.out / "figures" / name)
        print(f"results: {options.out / 'results.json'}; figures: {options.out / 'figures'}")


def unnamed_patients(material: Material) -> list[str]:
    """What a reader must know where frames cannot be grouped by patient."""
    counts = {f.labelled.unnamed for f in material.frames.values() if isinstance(f, FolderFrames)}
    return [
        f"{count} frames name no patient and count as patients of their own: where some are of one "
        "patient, intervals are too narrow, and folds and few-shot draws share patients"
        for count in sorted(counts - {0})
    ]


def load_subjects(options: argparse.Namespace) -> list[Subject]:
    """The model, the second under another name, and the untrained one where it was asked for."""
    name = options.checkpoint.resolve().name
    subjects = [load_subject(options.checkpoint, name)]
    if options.second is not None:
        second = options.second.resolve()
        other = second.name if second.name != name else f"{second.parent.name}/{second.name}"
        if other == name:
            other = str(second)
        subjects.append(load_subject(options.second, other))
    if options.untrained:
        subjects.append(untrained(subjects[0], options.seed))
    return subjects


def find_material(options: argparse.Namespace) -> Material:
    """The frames of each task that the data allows.

    Raises:
      UserError: for data that is neither kind, allows no task, or is not the protocol's.
    """
    data = options.data
    if options.protocol:
        sets = read_protocol(data, options.protocol)
        found = {"detection": sets.detection, "malignancy": sets.malignancy}
        return Material(
            {task: FolderFrames(labelled) for task, labelled in found.items() if labelled}, {}, {}
        )
    if (data / CARD_FILE).is_file():
        return _of_shards(Index.open(data), options)
    if not (data / LABELS_FILE).is_file():
        raise UserError(
            f"{data} is nothing to evaluate on: give a folder with {LABELS_FILE}, or prepared "
            f"shards (a folder with {CARD_FILE})"
        )
    if options.probe == "train":
        raise UserError("--probe=train needs prepared shards: a folder of frames has no splits")
    frames = FolderFrames.open(data)
    return Material(_possible(dict.fromkeys(TASKS, frames), str(data)), {}, {})


def _of_shards(index: Index, options: argparse.Namespace) -> Material:
    rows = index.rows(options.split)

    def sets(split: str) -> dict[str, FrameSet]:
        of_split = index.rows(split)
        return {
            "detection": SplitFrames(index, of_split),
            "malignancy": SplitPolyps(index, of_split),
        }

    frames = _possible(sets(options.split), f"{index.folder}, split {options.split}")
    return Material(
        frames,
        _with_both(sets("validation")) if options.split != "validation" else {},
        _with_both(sets("train")) if options.probe == "train" else {},
        index,
        rows,
    )


def _possible(sets: Mapping[str, FrameSet], where: str) -> dict[str, FrameSet]:
    found = _with_both(sets)
    if not found:
        raise UserError(
            f"{where} has neither frames with and without a polyp nor polyps of Vienna "
            "class 1 and of 3, 4 or 5: there is nothing to evaluate"
        )
    return found


def _with_both(sets: Mapping[str, FrameSet]) -> dict[str, FrameSet]:
    """Those sets whose labels hold both classes of their task."""
    found = {}
    for task, frames in sets.items():
        truth = frames.truth(frames.labelled_frames())
        if task == "detection":
            both = bool(truth.polyp.any() and not truth.polyp.all())
        else:
            both = all(np.isin(truth.vienna, side).any() for side in (BENIGN, MALIGNANT))
        if both:
            found[task] = frames
    return found


def _evaluated(
    task: str,
    subjects: Sequence[Subject],
    frames: FrameSet,
    prompts: Prompts,
    options: argparse.Namespace,
    *,
    few_shot: bool,
) -> TaskResult:
    return TASKS[task](
        subjects,
        frames,
        load_tokenizer(),
        seed=options.seed,
        draws=options.draws,
        with_few_shot=few_shot,
        prompts=prompts,
        per_prompt=few_shot,
    )


def _task_analysis(
    task: str,
    subjects: Sequence[Subject],
    result: TaskResult,
    material: Material,
    prompts: Prompts,
    options: argparse.Namespace,
) -> analysis.Analysis:
    spread = {"seed": options.seed, "draws": options.draws}
    others = {
        name: _evaluated(task, subjects, sets[task], prompts, options, few_shot=False)
        for name, sets in (("validation", material.validation), ("training", material.training))
        if task in sets
    }
    found = []
    for subject in subjects:
        found += [
            analysis.full_probe(subject, result, others.get("training"), **spread),
            analysis.operating_point(
                subject.name, result, others.get("validation"),
                specificity=options.specificity, **spread,
            ),
            analysis.calibrations(subject, result, **spread),
            analysis.by_parts(subject.name, result, **spread),
        ]  # fmt: skip
    whole = analysis.merged(found)
    whole.curves = found[2].curves  # of the first model
    whole.notes = list(dict.fromkeys(whole.notes))
    if options.second is not None:
        whole.rows += analysis.compared(subjects[0].name, subjects[1].name, result, **spread)
    return whole


def _examinations(
    subjects: Sequence[Subject],
    result: TaskResult,
    material: Material,
    options: argparse.Namespace,
) -> analysis.Analysis:
    """Retrieval, frame selection and attention, with the features that detection has computed."""
    index, rows = material.index, material.rows
    assert index is not None and rows is not None and result.truth is not None
    found = analysis.Analysis()
    spread = {"seed": options.seed, "draws": options.draws}
    for subject in subjects:
        name = subject.name
        features = examinations.FrameFeatures(result.features[name], result.truth.frames)
        searched = examinations.retrieval(
            subject, load_tokenizer(), index, rows, features, **spread
        )
        found.rows += analysis.retrieval_rows(name, searched)
        if not searched:
            found.notes.append("retrieval: no polyp of this split is tied to a description")
        found.rows += _selection(name, index, rows, result, options)
        within = examinations.attention_within(
            subject, load_tokenizer(), index, cases.multi_polyp(index, rows), features
        )
        if subject.attention is None:
            found.notes.append(f"attention: {name} has trained none")
        judged = examinations.attention_against_truth(index, within, **spread)
        found.rows += analysis.attention_rows(name, judged)
    found.notes = list(dict.fromkeys(found.notes))
    return found


def _selection(
    name: str, index: Index, rows: np.ndarray, result: TaskResult, options: argparse.Namespace
) -> list[Row]:
    assert result.truth is not None
    positive = np.isin(index.frames["record"][result.truth.frames], cases.positives(index, rows))
    frames = result.truth.frames[positive]
    if not len(frames) or (index.frames["polyp"][frames] == UNKNOWN_POLYP).all():
        return []
    quality, _ = rule_quality(
        result.scores[name][positive],
        np.asarray(index.frames["record"][frames], np.int64),
        np.asarray(index.frames["polyp"][frames], np.int64),
        rho=options.rho,
        seed=options.seed,
    )
    return selection_rows(f"rho {options.rho:g}", quality, name)
