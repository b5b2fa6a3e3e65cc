"""The two tasks of Endo-CLIP, Table 1, for any number of models under one protocol.

Detection: does a frame show a polyp? Malignancy: is a polyp non-neoplastic, or adenoma or worse
(Vienna 1 against 3, 4, 5; 2 and unknown left out and counted)?
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from endoclip_jax.data.tokenizer import Tokenizer
from endoclip_jax.errors import UserError
from endoclip_jax.evaluation import few_shot, prompts
from endoclip_jax.evaluation.frame_sets import FrameSet, Truth, embed_set
from endoclip_jax.evaluation.results import ZERO_SHOT, Row, few_shot_rows, scored_rows
from endoclip_jax.evaluation.zero_shot import class_feature, detection_scores, malignancy_scores
from endoclip_jax.models.clip import CLIP
from endoclip_jax.training.embedding import embed_texts

BENIGN, MALIGNANT = (1,), (3, 4, 5)


@dataclass(frozen=True)
class Subject:
    """A model to evaluate: its towers and, after stage 3, the value kernels of its attention.

    `value_image` is W_V^{tv}, `value_text` W_V^{vt}; None where plain cosine is the trained score.
    """

    name: str
    model: CLIP
    params: Any
    value_image: np.ndarray | None = None
    value_text: np.ndarray | None = None


@dataclass
class TaskResult:
    """What one task gave: rows for `results.json`, and per model the headline scores and features.

    All models are scored on the same frames, so scores of two models can be compared in pairs.
    """

    rows: list[Row] = field(default_factory=list)
    labels: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    truth: Truth | None = None
    scores: dict[str, np.ndarray] = field(default_factory=dict)
    features: dict[str, np.ndarray] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def texts(subject: Subject, tokenizer: Tokenizer, sentences: Sequence[str]) -> np.ndarray:
    """Unit text features `[n, d]` of some sentences."""
    return embed_texts(subject.model, subject.params, tokenizer(list(sentences))[0])


def evaluate_detection(
    subjects: Sequence[Subject],
    frames: FrameSet,
    tokenizer: Tokenizer,
    *,
    seed: int,
    draws: int,
    with_few_shot: bool,
) -> TaskResult:
    """Zero-shot by the two sentences of stage 1, and few-shot, for each model."""
    result = TaskResult()
    for subject in subjects:
        features, truth = embed_set(subject.model, subject.params, frames)
        result.truth, result.labels = truth, truth.polyp
        require_both_classes(result.labels, "detection", "polyp", "no polyp")
        polyp, background = texts(
            subject, tokenizer, [prompts.DETECTION.polyp, prompts.DETECTION.background]
        )
        scores = detection_scores(features, polyp, background)
        result.features[subject.name], result.scores[subject.name] = features, scores
        result.rows += scored_rows(
            subject.name, "detection", ZERO_SHOT, scores, truth.polyp, truth.patients, seed, draws
        )
        if with_few_shot:
            result.rows += _few_shot(subject.name, "detection", result, result.labels)
    return result


def evaluate_malignancy(
    subjects: Sequence[Subject],
    frames: FrameSet,
    tokenizer: Tokenizer,
    *,
    seed: int,
    draws: int,
    with_few_shot: bool,
) -> TaskResult:
    """Zero-shot by each prompt set (headline P2), and few-shot, for each model.

    A model with value kernels is scored by the function stage 3 trained at K = L = 1, with the
    plain cosine beside it.
    """
    result = TaskResult()
    for subject in subjects:
        features, truth = embed_set(subject.model, subject.params, frames)
        known = np.isin(truth.vienna, BENIGN + MALIGNANT)
        if not known.all() and not result.notes:
            result.notes.append(
                f"malignancy: {int((~known).sum())} frames of Vienna class 2 or unknown "
                "are left out"
            )
        features, truth = features[known], _where(truth, known)
        labels = np.isin(truth.vienna, MALIGNANT).astype(np.int64)
        result.truth, result.labels = truth, labels
        require_both_classes(labels, "malignancy", "Vienna 3, 4 or 5", "Vienna 1")
        result.features[subject.name] = features
        for prompt_set in prompts.MALIGNANCY.values():
            headline = prompt_set.name == prompts.HEADLINE
            benign = class_feature(texts(subject, tokenizer, prompt_set.benign))
            malignant = class_feature(texts(subject, tokenizer, prompt_set.malignant))
            kernels = {"": (subject.value_image, subject.value_text)}
            if subject.value_image is not None:
                kernels[" plain cosine"] = (None, None)
            for suffix, (image, text) in kernels.items():
                scores = malignancy_scores(features, malignant, benign, image, text)
                setting = ZERO_SHOT if headline else f"{ZERO_SHOT} {prompt_set.name}"
                if headline and not suffix:
                    result.scores[subject.name] = scores
                result.rows += scored_rows(
                    subject.name, "malignancy", setting + suffix, scores, labels, truth.patients,
                    seed, draws,
                )  # fmt: skip
        if with_few_shot:
            result.rows += _few_shot(subject.name, "malignancy", result, labels)
    return result


def require_both_classes(labels: np.ndarray, task: str, positive: str, negative: str) -> None:
    """Stops where a task has frames of one class only: no AUROC exists then."""
    if labels.all() or not labels.any():
        missing = negative if len(labels) and labels.all() else positive
        raise UserError(
            f"{task} cannot be evaluated on {len(labels)} frames: none is of class “{missing}”; "
            "give a labelled set that has both"
        )


def _where(truth: Truth, mask: np.ndarray) -> Truth:
    return Truth(truth.frames[mask], truth.polyp[mask], truth.vienna[mask], truth.patients[mask])


def _few_shot(name: str, task: str, result: TaskResult, labels: np.ndarray) -> list[Row]:
    """Few-shot rows of one model; a set too small for a fraction is noted, not an error."""
    assert result.truth is not None
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
