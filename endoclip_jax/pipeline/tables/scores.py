"""Evaluates a row once and keeps what it gave: numbers, and the scores that paired tests need."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from endoclip_jax.data.loaders import scoring_batches
from endoclip_jax.data.selection import keep_top
from endoclip_jax.evaluation import few_shot
from endoclip_jax.evaluation.evaluate import TaskResult, evaluate_detection, evaluate_malignancy
from endoclip_jax.evaluation.frame_selection import rule_quality, selection_rows
from endoclip_jax.evaluation.frame_sets import FolderFrames
from endoclip_jax.evaluation.leak import GROUP, PatientFeatures, pairing_rates
from endoclip_jax.evaluation.results import Row as Number
from endoclip_jax.evaluation.tables import json_text
from endoclip_jax.files import replace_file
from endoclip_jax.pipeline.evaluate import detection_frames
from endoclip_jax.pipeline.run import ROUND_2, Run, cross_attention_of, params_of
from endoclip_jax.pipeline.scoring import score_frames
from endoclip_jax.pipeline.tables.plan import STAGE_OF, Row
from endoclip_jax.pipeline.tables.subjects import Absent, subject
from endoclip_jax.stages import cases
from endoclip_jax.stages.unification import largest_first
from endoclip_jax.training import checkpoints, processes
from endoclip_jax.training.embedding import embed_frames, embed_texts
from endoclip_jax.training.integrity import text_checksum

NUMBERS, SCORES = "evaluation.json", "scores.npz"


@dataclass(frozen=True)
class Scored:
    """What one row gave with one seed.

    Attributes:
      numbers: as in `results.json`.
      scores: for each task with a zero-shot score: `scores`, `labels` and `groups`, aligned with
        every other row's of the same seed.
      matches: match rates of `evaluation.leak`, empty where they were not asked for.
      missing: why the model has no numbers at all.
    """

    numbers: tuple[Number, ...]
    scores: dict[str, dict[str, np.ndarray]]
    matches: dict[str, float]
    notes: tuple[str, ...]
    missing: str
    seconds: float


def score_row(run: Run, row: Row) -> None:
    """Evaluates the row's models unless that was done with these very checkpoints, in process 0."""
    folder = row_folder(run.workdir, run.config.table.name, row)
    key = processes.first(partial(key_of, run, row))
    if processes.first(partial(is_scored, folder, key)):
        return
    params = {name: params_of(run, name) for name in row.sources if name in STAGE_OF}
    processes.first(partial(_score, alone(run), row, params, folder, key))
    run.say(f"{run.workdir.name}: {row.name} is evaluated")


def alone(run: Run) -> Run:
    """The run as process 0 has it to itself, where nobody counts its steps."""
    setting = replace(run.setting, process_index=0, process_count=1, step=lambda _doing: None)
    return replace(run, setting=setting)


def read_scored(folder: Path) -> Scored | None:
    """What `score_row` left in a row's folder; None if it has not been there."""
    if not (folder / NUMBERS).exists():
        return None
    content = json.loads((folder / NUMBERS).read_text(encoding="utf-8"))
    scores: dict[str, dict[str, np.ndarray]] = {}
    with (folder / SCORES).open("rb") as file, np.load(file) as stored:
        for name in stored.files:
            task, _, what = name.partition(" ")
            scores.setdefault(task, {})[what] = stored[name]
    return Scored(
        numbers=tuple(Number(**number) for number in content["numbers"]),
        scores=scores,
        matches=content["matches"],
        notes=tuple(content["notes"]),
        missing=content["missing"],
        seconds=content["seconds"],
    )


def row_folder(seed_folder: Path, table: str, row: Row) -> Path:
    """Where a row's evaluation lies."""
    return seed_folder / "rows" / table / row.folder


def key_of(run: Run, row: Row) -> dict[str, Any]:
    """All that a row's numbers depend on."""
    metas = {
        name: checkpoints.read_meta(run.folder(name), checkpoints.best_step(run.folder(name)))
        for name in row.sources
        if name in STAGE_OF
    }
    return {
        "row": [row.detection, row.malignancy, row.selection, row.leak],
        "checkpoints": {
            name: text_checksum(json.dumps(meta, sort_keys=True)) for name, meta in metas.items()
        },
        "data": run.setting.index.fingerprint,
        "polyps": str(run.polyps or ""),
        "few-shot": few_shot.PROTOCOL,
        "settings": [run.config.seed, run.config.init.to_dict(), run.config.eval.to_dict()],
    }


def is_scored(folder: Path, key: Mapping[str, Any]) -> bool:
    """Whether a row's folder holds the numbers of these very checkpoints, data and settings."""
    path = folder / NUMBERS
    return path.exists() and json.loads(path.read_text(encoding="utf-8"))["key"] == key


def _score(
    run: Run, row: Row, params: Mapping[str, Any], folder: Path, key: Mapping[str, Any]
) -> None:
    began = time.monotonic()
    tasks: dict[str, TaskResult] = {}
    numbers: list[Number] = []
    notes: list[str] = []
    missing = ""
    try:
        tasks = _tasks(run, row, params, notes)
    except Absent as absent:
        missing = str(absent)
    for result in tasks.values():
        numbers += result.rows
        notes += result.notes
    if row.selection:
        numbers += _selection(run, row, params[ROUND_2])
    matches = _leak_rates(run, params["stage3"], params[ROUND_2]) if row.leak else {}
    if row.leak and not matches:
        notes.append(f"match rates need {2 * GROUP} held-out multi-polyp patients")
    _save(folder / SCORES, _paired(run, row, tasks))
    content = {
        "key": key,
        "numbers": [asdict(number) for number in numbers],
        "matches": matches,
        "notes": notes,
        "missing": missing,
        "seconds": time.monotonic() - began,
    }
    replace_file(folder / NUMBERS, json_text(content))  # last: it says that all is there


def _paired(run: Run, row: Row, tasks: Mapping[str, TaskResult]) -> dict[str, np.ndarray]:
    """Scores, labels and patients of the tasks that have a zero-shot score, named "TASK what"."""
    arrays: dict[str, np.ndarray] = {}
    for name, result in tasks.items():
        if row.name not in result.scores or result.truth is None:
            continue
        groups = [f"{run.setting.index.fingerprint} {p!s}" for p in result.truth.patients]
        arrays[f"{name} scores"] = result.scores[row.name]
        arrays[f"{name} labels"] = result.labels
        arrays[f"{name} groups"] = np.asarray(groups)
    return arrays


def _save(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    named: dict[str, Any] = dict(arrays)
    stored = io.BytesIO()
    np.savez_compressed(stored, **named)
    replace_file(path, stored.getvalue())


def _tasks(
    run: Run, row: Row, params: Mapping[str, Any], notes: list[str]
) -> dict[str, TaskResult]:
    options = {
        "seed": run.config.seed,
        "draws": run.config.eval.bootstrap_draws,
        "with_few_shot": run.config.eval.few_shot,
    }
    tokenizer = run.setting.tokenizer
    tasks = {}
    if row.detection:
        model = subject(run, row.detection, row.name, params.get(row.detection))
        frames = detection_frames(run)
        if frames is None:
            notes.append("detection is not measured: the test split has no frame labels")
        else:
            tasks["detection"] = evaluate_detection([model], frames, tokenizer, **options)
    if row.malignancy:
        model = subject(run, row.malignancy, row.name, params.get(row.malignancy))
        if run.polyps is None:
            notes.append("malignancy is not measured: no labelled polyps (config.eval.malignancy)")
        else:
            polyps = FolderFrames.open(run.polyps)
            tasks["malignancy"] = evaluate_malignancy([model], polyps, tokenizer, **options)
    return tasks


def _selection(run: Run, row: Row, params: Mapping[str, Any]) -> list[Number]:
    """The selection rule on held-out positive patients against truth, where it is known."""
    index, settings = run.setting.index, run.config.stage1
    frames = _frames(run, cases.positives(index, index.rows("test")))
    if not len(frames) or not (np.asarray(index.frames["polyp"][frames]) >= 0).any():
        return []
    scores, scored = score_frames(run.setting, params["clip"], frames)
    quality, _ = rule_quality(
        scores,
        np.asarray(index.frames["record"][scored], np.int64),
        np.asarray(index.frames["polyp"][scored], np.int64),
        rho=settings.rho,
        rule=settings.selection,
        seed=run.config.seed,
    )
    return selection_rows("after round 2", quality, row.name)


def _leak_rates(
    run: Run, params: Mapping[str, Any], cleansing: Mapping[str, Any]
) -> dict[str, float]:
    """Match rates of held-out multi-polyp patients; empty where there are too few of them."""
    patients = _patients(run, params, cleansing)
    if patients is None or len(patients) < 2 * GROUP:
        return {}
    module = cross_attention_of(run.config)
    return pairing_rates(module, params.get("cross", {}), patients, seed=run.config.seed)


def _patients(
    run: Run, params: Mapping[str, Any], cleansing: Mapping[str, Any]
) -> PatientFeatures | None:
    """Held-out multi-polyp patients as stage 3 sees them: kept frames, descriptions.

    Args:
      params, cleansing: of stage 3, whose features these are, and of stage 1, which chose frames.
    """
    index, settings = run.setting.index, run.config.stage3
    rows = cases.multi_polyp(index, index.rows("test"))
    frames = _frames(run, rows)
    if not len(frames):
        return None
    scores, scored = score_frames(run.setting, cleansing["clip"], frames)
    records = np.asarray(index.frames["record"][scored], np.int64)
    kept = keep_top(scores, records, run.config.stage1.rho, run.config.stage1.selection)
    chosen, items = [], []
    for row in rows:
        mine = np.flatnonzero(kept & (records == row))
        best_first = mine[np.argsort(-scores[mine], kind="stable")][: settings.max_images]
        own = largest_first(index, index.item_rows(int(row)))[: settings.max_texts]
        if len(best_first) and len(own):
            chosen.append(scored[best_first])
            items.append(own)
    if not chosen:
        return None
    v = _embedded_frames(run, params, np.concatenate(chosen))
    sentences = [index.description(int(item)) for own in items for item in own]
    t = embed_texts(run.setting.model, params["clip"], run.setting.tokenizer(sentences)[0])
    return PatientFeatures(
        *_padded(v, [len(own) for own in chosen]), *_padded(t, [len(own) for own in items])
    )


def _embedded_frames(run: Run, params: Mapping[str, Any], frames: np.ndarray) -> np.ndarray:
    """Features in the order of `frames`, all of which could be decoded when they were scored."""
    size = run.setting.image_size
    batches = scoring_batches(run.setting.index, frames, batch=256, image_size=size)
    features, ids = embed_frames(run.setting.model, params["clip"], batches)
    place = {int(frame): number for number, frame in enumerate(ids)}
    return features[[place[int(frame)] for frame in frames]]


def _padded(features: np.ndarray, counts: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Consecutive runs of rows as `[n, most, d]` with their mask."""
    width = max(counts)
    padded = np.zeros((len(counts), width, features.shape[1]), np.float32)
    mask = np.arange(width) < np.asarray(counts)[:, None]
    padded[mask] = features
    return padded, mask


def _frames(run: Run, rows: np.ndarray) -> np.ndarray:
    frames = cases.all_frames(run.setting.index, rows)
    return np.concatenate(frames) if frames else np.zeros((0,), np.int64)
