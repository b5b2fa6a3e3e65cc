"""The pictures of a run's report, from its scores and features; also as files, vector and PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from endoclip_jax.data.loaders import scoring_batches
from endoclip_jax.evaluation import figures
from endoclip_jax.evaluation.calibration import Reliability
from endoclip_jax.evaluation.evaluate import TaskResult
from endoclip_jax.evaluation.examinations import (
    FrameFeatures,
    PatientAttention,
    described_polyps,
)
from endoclip_jax.evaluation.findings import BASELINE, OURS
from endoclip_jax.pipeline.patients import HeldOut
from endoclip_jax.pipeline.run import FOLDERS_OF, Run
from endoclip_jax.records.attributes import ASPECTS, SIZE_CLASSES, aspect_slice
from endoclip_jax.records.manifest import UNKNOWN_POLYP
from endoclip_jax.training.metrics import read_metrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SHEET_FRAMES = 18  # of each kind
_ATTENTION_PATIENTS = 2
_SHOWN_ASPECTS = ("size_class", "gross_form", "colour")


@dataclass
class Pictures:
    """Picture bytes and captions by the names that the report knows; each is also left as a file.

    Drawings and attention are left in `folder` as PNG and SVG, sheets of photographs as JPEG.
    """

    folder: Path
    shown: dict[str, bytes] = field(default_factory=dict)
    captions: dict[str, str] = field(default_factory=dict)

    def drawing(self, name: str, figure: Figure, caption: str = "") -> None:
        png, _ = figures.save(figure, self.folder / name)
        self._add(name, png.read_bytes(), caption)

    def photographs(
        self, name: str, figure: Figure, caption: str = "", *, vector: bool = False
    ) -> None:
        """A JPEG in the report and as a file; with `vector` PNG and SVG files instead."""
        data = figures.jpeg_bytes(figure)
        stem = self.folder / name.replace(":", "_").replace(" ", "_")
        if vector:
            figures.save(figure, stem)
        else:
            self.folder.mkdir(parents=True, exist_ok=True)
            stem.with_suffix(".jpg").write_bytes(data)
        self._add(name, data, caption)

    def _add(self, name: str, data: bytes, caption: str) -> None:
        self.shown[name] = data
        if caption:
            self.captions[name] = caption


def draw_pictures(
    run: Run,
    tasks: Mapping[str, TaskResult],
    held_out: HeldOut,
    attention: Sequence[PatientAttention],
    curves: Mapping[str, Mapping[str, Reliability]],
    features: FrameFeatures | None,
    by_stage: Mapping[str, str],
) -> Pictures:
    """All pictures that the run's findings allow.

    Args:
      curves: reliability curves of each task.
      features: of held-out frames by the last stage.
      by_stage: caption of a panel to the model's name in the malignancy task, stage by stage.
    """
    pictures = Pictures(run.workdir / "report" / "figures")
    for name, task in tasks.items():
        scores = {model: task.scores[model] for model in (OURS, BASELINE)}
        pictures.drawing(f"roc_{name}", figures.roc_pr_curves(scores, task.labels))
        if curves.get(name):
            pictures.drawing(f"calibration_{name}", figures.reliability_curves(curves[name]))
    if "malignancy" in tasks:
        _draw_arrangements(pictures, tasks["malignancy"], by_stage, run.config.seed)
    if features is not None:
        _draw_attributes(pictures, run, features)
    if held_out:
        _draw_selection(pictures, run, held_out)
    for patient in [p for p in attention if len(p.frames) > 1][:_ATTENTION_PATIENTS]:
        _draw_attention(pictures, run, patient)
    losses = {
        name: read_metrics(run.folder(name)) for folders in FOLDERS_OF.values() for name in folders
    }
    pictures.drawing("training_curves", figures.training_curves(losses))
    return pictures


def _draw_arrangements(
    pictures: Pictures, task: TaskResult, by_stage: Mapping[str, str], seed: int
) -> None:
    malignant = task.labels.astype(bool)
    models = {model: task.features[model] for model in (BASELINE, OURS)}
    pictures.drawing("tsne", figures.tsne_scatter(models, malignant, seed=seed))
    stages = {words: task.features[name] for words, name in by_stage.items()}
    pictures.drawing("tsne_stages", figures.tsne_scatter(stages, malignant, seed=seed))


def _draw_attributes(pictures: Pictures, run: Run, features: FrameFeatures) -> None:
    index = run.setting.index
    frames, items = described_polyps(index, index.rows("test"))
    there = np.isin(frames, features.frames)
    frames, items = frames[there], items[there]
    if len(frames) < 10:
        return
    bits = np.asarray(index.items["bits_text"][items])
    points = features.features[np.searchsorted(features.frames, frames)]
    values = {
        aspect.replace("_", " "): one_value(bits[:, aspect_slice(aspect)], dict(ASPECTS)[aspect])
        for aspect in _SHOWN_ASPECTS
    }
    pictures.drawing("attributes", figures.attribute_scatter(points, values, seed=run.config.seed))


_IN_WORDS = dict(zip(SIZE_CLASSES, ("≤ 5 mm", "6–9 mm", "10–19 mm", "≥ 20 mm"), strict=True))


def one_value(bits: np.ndarray, names: Sequence[str]) -> list[str]:
    """The value of an aspect where exactly one bit is set, in words; "" for none or several."""
    words = [_IN_WORDS.get(name, name.replace("_", " ")) for name in names]
    return [words[int(row.argmax())] if row.sum() == 1 else "" for row in bits]


def _draw_selection(pictures: Pictures, run: Run, held_out: HeldOut) -> None:
    truth = np.asarray(run.setting.index.frames["polyp"], np.int64)
    if all((truth[scored] != UNKNOWN_POLYP).all() for _, scored, _, _ in held_out.values()):
        pictures.drawing(
            "score_histograms",
            figures.score_histograms(
                {name: scores for name, (_, _, scores, _) in held_out.items()},
                {name: truth[scored] >= 0 for name, (_, scored, _, _) in held_out.items()},
            ),
        )
    _, scored, scores, kept = list(held_out.values())[-1]
    pictures.photographs(
        "selection_sheet",
        _sheet(run, scored, scores, kept, truth),
        "Held-out positive examinations, frames drawn at random.",
    )


def _sheet(
    run: Run, frames: np.ndarray, scores: np.ndarray, kept: np.ndarray, truth: np.ndarray
) -> Any:
    rng = np.random.default_rng(run.config.seed)
    sides = []
    for mask in (kept, ~kept):
        chosen = rng.permutation(np.flatnonzero(mask))[:_SHEET_FRAMES]
        chosen = chosen[np.argsort(-scores[chosen], kind="stable")]
        rows, images = _images(run, frames[chosen])
        score_of = dict(zip(frames.tolist(), scores.tolist(), strict=True))
        sides += [images, np.asarray([score_of[row] for row in rows.tolist()]), truth[rows]]
    return figures.frame_sheet(*sides)


def _images(run: Run, frames: np.ndarray, size: int = 128) -> tuple[np.ndarray, np.ndarray]:
    """Readable frames, as ids and pixels, in the order asked for."""
    ids, pixels = [np.zeros(0, np.int64)], [np.zeros((0, size, size, 3), np.uint8)]
    for batch in scoring_batches(run.setting.index, frames, batch=32, image_size=size):
        keep = np.asarray(batch["valid"])
        ids.append(np.asarray(batch["frame"])[keep])
        pixels.append(np.asarray(batch["image"])[keep])
    return np.concatenate(ids), np.concatenate(pixels)


def _draw_attention(pictures: Pictures, run: Run, patient: PatientAttention) -> None:
    index = run.setting.index
    frames, thumbnails = _images(run, patient.frames)
    name = bytes(index.records["patient"][patient.record]).decode()[:6]
    pictures.photographs(
        f"attention:patient {name}",
        figures.attention_map(
            thumbnails,
            [index.description(int(item)) for item in patient.items],
            patient.image_to_text,
            image_polyp=np.asarray(index.frames["polyp"][frames], np.int64),
        ),
        vector=True,
    )
