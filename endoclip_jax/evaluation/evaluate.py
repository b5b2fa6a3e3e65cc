"""The two tasks of Endo-CLIP, Table 1, for any number of models under one protocol.

Detection: does a frame show a polyp? Malignancy: is a polyp non-neoplastic, or adenoma or worse
(Vienna 1 against 3, 4, 5; 2 and unknown left out and counted)?
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from endoclip_jax.data.tokenizer import Tokenizer
from endoclip_jax.errors import UserError
from endoclip_jax.evaluation import few_shot
from endoclip_jax.evaluation.frame_sets import FrameSet, Truth
from endoclip_jax.evaluation.prompts import PROMPTS, Prompts
from endoclip_jax.evaluation.results import ZERO_SHOT, Row, few_shot_rows, scored_rows
from endoclip_jax.evaluation.subjects import AnySubject, Subject
from endoclip_jax.evaluation.zero_shot import class_feature, zero_shot_scores

BENIGN, MALIGNANT = (1,), (3, 4, 5)
ONE_SENTENCE = "one sentence of"


@dataclass
class TaskResult:
    """What one task ("detection" or "malignancy") gave.

    Rows for `results.json`, and per model the headline scores and features.
    All models are scored on the same frames, so scores of two models can be compared in pairs.
    """

    task: str
    rows: list[Row] = field(default_factory=list)
    labels: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    truth: Truth | None = None
    scores: dict[str, np.ndarray] = field(default_factory=dict)
    features: dict[str, np.ndarray] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def evaluate_detection(
    subjects: Sequence[AnySubject],
    frames: FrameSet,
    tokenizer: Tokenizer,
    *,
    seed: int,
    draws: int,
    with_few_shot: bool,
    prompts: Prompts = PROMPTS["detection"],
    per_prompt: bool = False,
) -> TaskResult:
    """Zero-shot by the two sentences of stage 1, and few-shot, for each model.

    A model without a text tower has features and few-shot rows, and dashes for zero-shot.

    Args:
      prompts: other sets of sentences.
      per_prompt: also each sentence of a set alone, against the other class's whole ensemble.
    """
    result = TaskResult("detection")
    for subject in subjects:
        features, truth = subject.embed(frames)
        result.truth, result.labels = truth, truth.polyp
        require_both_classes(result.labels, "detection", "polyp", "no polyp")
        result.features[subject.name] = features
        if isinstance(subject, Subject):
            _zero_shot(
                subject, tokenizer, result, prompts, {"": (None, None)}, seed, draws, per_prompt
            )
        else:
            result.rows += _dashes(subject.name, "detection")
        if with_few_shot:
            result.rows += _few_shot(subject.name, result)
    return result


def evaluate_malignancy(
    subjects: Sequence[AnySubject],
    frames: FrameSet,
    tokenizer: Tokenizer,
    *,
    seed: int,
    draws: int,
    with_few_shot: bool,
    prompts: Prompts = PROMPTS["malignancy"],
    per_prompt: bool = False,
) -> TaskResult:
    """Zero-shot by each prompt set (headline P2), and few-shot, for each model.

    A model with value kernels is scored by the function stage 3 trained at K = L = 1, with the
    plain cosine beside it; one without a text tower has dashes. Arguments as for detection.
    """
    result = TaskResult("malignancy")
    for subject in subjects:
        features, result.truth, left_out = embed_polyps(subject, frames)
        if left_out and not result.notes:
            result.notes.append(
                f"malignancy: {left_out} frames of Vienna class 2 or unknown are left out"
            )
        result.labels = np.isin(result.truth.vienna, MALIGNANT).astype(np.int64)
        require_both_classes(result.labels, "malignancy", "Vienna 3, 4 or 5", "Vienna 1")
        result.features[subject.name] = features
        if isinstance(subject, Subject):
            kernels: Kernels = {"": (subject.value_image, subject.value_text)}
            if subject.value_image is not None:
                kernels[" plain cosine"] = (None, None)
            _zero_shot(subject, tokenizer, result, prompts, kernels, seed, draws, per_prompt)
        else:
            result.rows += _dashes(subject.name, "malignancy")
        if with_few_shot:
            result.rows += _few_shot(subject.name, result)
    return result


def embed_polyps(subject: AnySubject, frames: FrameSet) -> tuple[np.ndarray, Truth, int]:
    """Features of the polyps whose class is known, their truth, and how many others there are."""
    features, truth = subject.embed(frames)
    known = np.isin(truth.vienna, BENIGN + MALIGNANT)
    return features[known], truth.where(known), int((~known).sum())


Kernels = dict[str, tuple[np.ndarray | None, np.ndarray | None]]


def _zero_shot(
    subject: Subject,
    tokenizer: Tokenizer,
    result: TaskResult,
    prompts: Prompts,
    kernels: Kernels,
    seed: int,
    draws: int,
    per_prompt: bool,
) -> None:
    """Rows of every prompt set and kernel; the headline's first scores go into the result."""
    assert result.truth is not None
    features, patients = result.features[subject.name], result.truth.patients
    name, task = subject.name, result.task
    for prompt_set in prompts.sets.values():
        headline = prompt_set.name == prompts.headline
        negatives = subject.texts(tokenizer, prompt_set.negative)
        positives = subject.texts(tokenizer, prompt_set.positive)
        negative, positive = class_feature(negatives), class_feature(positives)
        for suffix, (image, text) in kernels.items():
            scores = zero_shot_scores(features, positive, negative, image, text)
            setting = ZERO_SHOT if headline else f"{ZERO_SHOT} {prompt_set.name}"
            if headline and not suffix:
                result.scores[name] = scores
            result.rows += scored_rows(
                name, task, setting + suffix, scores, result.labels, patients, seed, draws
            )
        if per_prompt and max(len(positives), len(negatives)) > 1:
            image, text = kernels[""]
            alone = {s: (t, negative) for s, t in zip(prompt_set.positive, positives, strict=True)}
            alone |= {s: (positive, t) for s, t in zip(prompt_set.negative, negatives, strict=True)}
            for sentence, pair in alone.items():
                scores = zero_shot_scores(features, *pair, image, text)
                setting = f"{ONE_SENTENCE} {prompt_set.name}: {sentence}"
                result.rows += scored_rows(
                    name, task, setting, scores, result.labels, patients, seed, draws
                )


def _dashes(name: str, task: str) -> list[Row]:
    """The zero-shot rows of a model that reads no text."""
    return [Row(name, task, ZERO_SHOT, metric, None) for metric in ("auroc", "aupr")]


def require_both_classes(labels: np.ndarray, task: str, positive: str, negative: str) -> None:
    """Stops where a task has frames of one class only: no AUROC exists then."""
    if labels.all() or not labels.any():
        missing = negative if len(labels) and labels.all() else positive
        raise UserError(
            f"{task} cannot be evaluated on {len(labels)} frames: none is of class “{missing}”; "
            "give a labelled set that has both"
        )


def _few_shot(name: str, result: TaskResult) -> list[Row]:
    """Few-shot rows of one model; a set too small for a fraction is noted, not an error."""
    assert result.truth is not None
    task, labels = result.task, result.labels
    rows: list[Row] = []
    for fraction in few_shot.FRACTIONS[task]:
        try:
            outcome = few_shot.few_shot(
                result.features[name],
                labels,
                result.truth.patients,
                fraction=fraction,
                seeds=range(few_shot.SEEDS[task]),
            )
        except UserError as error:
            note = f"{task}: {error}"
            if note not in result.notes:
                result.notes.append(note)
            continue
        rows += few_shot_rows(name, task, outcome, labels)
    return rows


def headline(rows: Sequence[Row], model: str, task: str, metric: str) -> float | None:
    """The zero-shot value of one model, None where it was not measured."""
    for row in rows:
        if (row.model, row.task, row.metric, row.setting) == (model, task, metric, ZERO_SHOT):
            return row.value
    return None
