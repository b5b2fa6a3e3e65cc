"""The pictures of a run's report, from its scores and features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from endoclip_jax.data.loaders import scoring_batches
from endoclip_jax.data.selection import keep_top
from endoclip_jax.evaluation import figures
from endoclip_jax.evaluation.evaluate import TaskResult
from endoclip_jax.evaluation.frame_selection import SelectionQuality
from endoclip_jax.evaluation.report import BASELINE, OURS
from endoclip_jax.pipeline.run import FOLDERS_OF, Run, cross_attention_of
from endoclip_jax.stages import cases
from endoclip_jax.training.embedding import embed_frames, embed_texts
from endoclip_jax.training.metrics import read_metrics

HeldOut = Mapping[str, tuple[SelectionQuality, np.ndarray, np.ndarray, np.ndarray]]

_SHEET_FRAMES = 18  # of each kind
_ATTENTION_PATIENTS = 2


def draw_pictures(
    run: Run, tasks: Mapping[str, TaskResult], held_out: HeldOut, stage3: Mapping[str, Any]
) -> tuple[dict[str, bytes], dict[str, str]]:
    """Picture bytes and captions by the names the report knows."""
    pictures: dict[str, bytes] = {}
    captions: dict[str, str] = {}
    for name, task in tasks.items():
        curves = {model: task.scores[model] for model in (OURS, BASELINE)}
        pictures[f"roc_{name}"] = figures.png_bytes(figures.roc_pr_curves(curves, task.labels))
    if "malignancy" in tasks:
        features = {model: tasks["malignancy"].features[model] for model in (BASELINE, OURS)}
        pictures["tsne"] = figures.png_bytes(
            figures.tsne_scatter(
                features, tasks["malignancy"].labels.astype(bool), seed=run.config.seed
            )
        )
    if held_out:
        truth = np.asarray(run.setting.index.frames["polyp"], np.int64)
        pictures["score_histograms"] = figures.png_bytes(
            figures.score_histograms(
                {name: scores for name, (_, _, scores, _) in held_out.items()},
                {name: truth[scored] >= 0 for name, (_, scored, _, _) in held_out.items()},
            )
        )
        _, scored, scores, kept = held_out["after round 2"]
        pictures["selection_sheet"] = figures.jpeg_bytes(_sheet(run, scored, scores, kept, truth))
        captions["selection_sheet"] = "Held-out positive examinations, frames drawn at random."
        for record, map_bytes in _attention_maps(run, scored, scores, stage3).items():
            pictures[f"attention:{record}"] = map_bytes
    curves_of = {
        name: read_metrics(run.folder(name)) for folders in FOLDERS_OF.values() for name in folders
    }
    pictures["training_curves"] = figures.png_bytes(figures.training_curves(curves_of))
    return pictures, captions


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
    ids, pixels = [], []
    for batch in scoring_batches(run.setting.index, frames, batch=32, image_size=size):
        keep = np.asarray(batch["valid"])
        ids.append(np.asarray(batch["frame"])[keep])
        pixels.append(np.asarray(batch["image"])[keep])
    return np.concatenate(ids), np.concatenate(pixels)


def _attention_maps(
    run: Run, scored: np.ndarray, scores: np.ndarray, stage3: Mapping[str, Any]
) -> dict[str, bytes]:
    """Attention of kept frames over sentences for the first multi-polyp test patients."""
    if run.config.stage3.attention == "none":
        return {}
    index, setting = run.setting.index, run.setting
    module = cross_attention_of(run.config)
    records = np.asarray(index.frames["record"][scored], np.int64)
    kept = keep_top(scores, records, run.config.stage1.rho, run.config.stage1.selection)
    maps: dict[str, bytes] = {}
    for row in cases.multi_polyp(index, index.rows("test")):
        items = index.item_rows(int(row))[: run.config.stage3.max_texts]
        frames = scored[kept & (records == row)][: run.config.stage3.max_images]
        if len(items) < 2 or len(frames) < 2:
            continue
        frames, thumbnails = _images(run, frames)
        sentences = [index.description(int(item)) for item in items]
        batches = scoring_batches(index, frames, batch=16, image_size=setting.image_size)
        v, _ = embed_frames(setting.model, stage3["clip"], batches)
        t = embed_texts(setting.model, stage3["clip"], setting.tokenizer(sentences)[0])
        weights: Any = module.apply(
            {"params": stage3["cross"]},
            jnp.asarray(v[None]),
            jnp.ones((1, len(v)), bool),
            jnp.asarray(t[None]),
            jnp.ones((1, len(t)), bool),
            method="attention_weights",
        )
        name = f"patient {bytes(index.records['patient'][row]).decode()[:6]}"
        maps[name] = figures.jpeg_bytes(
            figures.attention_map(
                thumbnails,
                sentences,
                np.asarray(weights.image_to_text[0]),
                image_polyp=np.asarray(index.frames["polyp"][frames], np.int64),
            )
        )
        if len(maps) == _ATTENTION_PATIENTS:
            break
    return maps
