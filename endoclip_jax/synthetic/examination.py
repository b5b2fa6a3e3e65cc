"""One examination of the embedded cohort: planned from random streams, then drawn."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from endoclip_jax.records.attributes import union_bits
from endoclip_jax.synthetic import tables
from endoclip_jax.synthetic.files import encode_jpeg, table_text
from endoclip_jax.synthetic.frame import render_frame, sample_scene
from endoclip_jax.synthetic.report import Report, write_report
from endoclip_jax.synthetic.sampling import (
    FramePlan,
    Lesion,
    sample_frame_plans,
    sample_lesions,
    sample_polyp_count,
)

SETS = ("train", "validation", "test", "polyps")
"""The splits and the labelled polyps; their order numbers the random streams and the patients."""
CLINICAL, REPORT, FRAMES, WHOLE_SET = range(4)
"""The parts of a patient that draw from streams of their own, and one stream for a whole set."""


def patient_stream(seed: int, name: str, number: int, part: int) -> np.random.Generator:
    """The random stream of one part of one patient of one set."""
    key = (SETS.index(name), number, part)
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


@dataclass(frozen=True)
class Examination:
    """One examination before it is drawn; the lesions stand in the report's order of mention."""

    seed: int
    split: str
    number: int
    lesions: tuple[Lesion, ...]
    report: Report
    frames: tuple[FramePlan, ...]
    scenes: tuple[str, ...]

    @property
    def patient_id(self) -> str:
        return f"P{SETS.index(self.split)}{self.number:06d}"

    @property
    def exam_id(self) -> str:
        return f"E{SETS.index(self.split)}{self.number:06d}"


def _is_positive(seed: int, split: str, number: int) -> bool:
    """Spreads positives evenly, so that every size of cohort has its share of them."""
    phase = patient_stream(seed, split, 0, WHOLE_SET).random()
    share = tables.POSITIVE_SHARE
    return int((number + 1) * share + phase) > int(number * share + phase)


def plan_examination(seed: int, split: str, number: int, frames: int) -> Examination:
    """Lesions, report and frame plan of one patient; quick, nothing is rendered."""
    clinical = patient_stream(seed, split, number, CLINICAL)
    lesions: list[Lesion] = []
    if _is_positive(seed, split, number):
        lesions = sample_lesions(clinical, sample_polyp_count(clinical))
    report = write_report(patient_stream(seed, split, number, REPORT), lesions)
    lesions = [lesions[i] for i in report.order]
    plans = sample_frame_plans(clinical, lesions, frames)
    scenes = [sample_scene(clinical, bool(lesions), p.polyp >= 0) for p in plans]
    return Examination(seed, split, number, tuple(lesions), report, tuple(plans), tuple(scenes))


def _file_name(position: int) -> str:
    return f"{position + 1:04d}.jpg"


def truth(exam: Examination) -> dict[str, Any]:
    """All that is known of the examination, as a row of `truth.jsonl`."""
    count = len(exam.lesions)
    return {
        "patient_id": exam.patient_id,
        "exam_id": exam.exam_id,
        "split": exam.split,
        "case_type": ("negative", "single", "multi")[min(count, 2)],
        "kind": exam.report.kind,
        "language": exam.report.language,
        "style": exam.report.style,
        "private": exam.report.private,
        "lesions": [
            {
                "bits": x.bits.tolist(),
                "vienna": x.vienna,
                "size_mm": x.size_mm,
                "form": x.form,
                "lst_type": x.lst_type,
                "location": x.location,
                "item": next(k for k, it in enumerate(exam.report.items) if i in it["lesions"]),
                "frame": next(
                    _file_name(k)
                    for k, p in enumerate(exam.frames)
                    if p.polyp == i and p.indicative
                ),
            }
            for i, x in enumerate(exam.lesions)
        ],
        "items": exam.report.items,
        "union_bits": union_bits(
            [np.array(item["bits"], np.uint8) for item in exam.report.items]
        ).tolist(),
        "frames": [
            {
                "file": _file_name(k),
                "polyp_index": p.polyp,
                "scene": scene,
                "imaging": p.imaging,
                "indicative": p.indicative,
            }
            for k, (p, scene) in enumerate(zip(exam.frames, exam.scenes, strict=True))
        ],
    }


def manifest_row(exam: Examination) -> dict[str, str]:
    """The examination's row of `records.csv`."""
    return {
        "patient_id": exam.patient_id,
        "exam_id": exam.exam_id,
        "report": f"{exam.exam_id}/report.txt",
        "images": exam.exam_id,
        "pathology": json.dumps([x.vienna for x in exam.lesions]),
        "frame_labels": f"{exam.exam_id}/frame_labels.csv",
        "split": exam.split,
    }


def write_examination(records: Path, exam: Examination) -> None:
    """The examination's folder; appears under its name only when whole, and is kept if there."""
    final = records / exam.exam_id
    if final.exists():
        return
    partial = records / f".{exam.exam_id}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    rng = patient_stream(exam.seed, exam.split, exam.number, FRAMES)
    labels = []
    for k, (plan, scene) in enumerate(zip(exam.frames, exam.scenes, strict=True)):
        pixels = render_frame(
            rng,
            lesion=exam.lesions[plan.polyp] if plan.polyp >= 0 else None,
            scene=scene,
            imaging=plan.imaging,
            indicative=plan.indicative,
        )
        (partial / _file_name(k)).write_bytes(encode_jpeg(pixels))
        shown = plan.polyp >= 0
        labels.append(
            {
                "file": _file_name(k),
                "polyp": int(shown),
                "polyp_index": plan.polyp if shown else "",
                "indicative": int(plan.indicative),
            }
        )
    columns = ("file", "polyp", "polyp_index", "indicative")
    (partial / "frame_labels.csv").write_text(table_text(columns, labels), "utf-8")
    (partial / "report.txt").write_text(exam.report.text, "utf-8")
    partial.rename(final)
