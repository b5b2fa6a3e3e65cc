"""Writes the embedded cohort: a records folder like a hospital's, with its whole truth beside it.

    FOLDER/cohort.json                     what it is; written last, so its presence means complete
    FOLDER/records/records.csv             manifest, one examination a row
    FOLDER/records/truth.jsonl             all that is known of each examination, same order
    FOLDER/records/EXAM/{0001.jpg, ..., report.txt, frame_labels.csv}
    FOLDER/polyps/{labels.csv, images/}    one indicative frame each of further test polyps,
                                           and their truth.jsonl

Every patient draws from random streams of their own, spawned from (seed, set, patient number,
part), so that neither the number of processes nor the size of another split changes a byte.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from endoclip_jax.errors import UserError
from endoclip_jax.files import replace_file
from endoclip_jax.records.attributes import size_class
from endoclip_jax.synthetic import tables
from endoclip_jax.synthetic.examination import (
    CLINICAL,
    FRAMES,
    SETS,
    WHOLE_SET,
    manifest_row,
    patient_stream,
    plan_examination,
    truth,
    write_examination,
)
from endoclip_jax.synthetic.files import encode_jpeg, json_lines, table_text
from endoclip_jax.synthetic.frame import render_frame, sample_scene
from endoclip_jax.synthetic.sampling import Lesion, sample_lesion, sample_polyp_count

VERSION = 3
"""Changes whenever the same seed gives other bytes."""
EXAMINATIONS = {"train": 1000, "validation": 100, "test": 250}

_SPLITS = SETS[:3]
_MANIFEST = (
    "patient_id", "exam_id", "report", "images", "pathology", "frame_labels", "split",
)  # fmt: skip
_LABELS = ("file", "polyp", "vienna", "patient", "segment", "size_class", "imaging")

# --- the labelled polyps -------------------------------------------------------------------------


def labelled_vienna(rng: np.random.Generator, polyps: int) -> np.ndarray:
    """Vienna classes of the labelled set, int[polyps]: benign to malignant as 1 to 4."""
    benign = round(polyps * tables.BENIGN_SHARE_LABELLED)
    malignant = tables.P_VIENNA_LABELLED_MALIGNANT
    counts = {v: round((polyps - benign) * p) for v, p in malignant.items()}
    counts[3] += polyps - benign - sum(counts.values())
    classes = np.repeat([1, *counts], [benign, *counts.values()])
    return rng.permutation(classes)


def labelled_patients(rng: np.random.Generator, polyps: int) -> list[str]:
    """The patient of each labelled polyp: as many polyps a patient as positives have."""
    patients: list[str] = []
    while len(patients) < polyps:
        name = f"P{SETS.index('polyps')}{len(set(patients)):06d}"
        patients += [name] * sample_polyp_count(rng)
    return patients[:polyps]


@dataclass(frozen=True)
class LabelledPolyp:
    """One polyp of the labelled set before its one, indicative frame is drawn."""

    lesion: Lesion
    scene: str
    imaging: str


def plan_labelled(seed: int, number: int, vienna: int) -> LabelledPolyp:
    """The labelled polyp of this number, of the given Vienna class; nothing is rendered."""
    clinical = patient_stream(seed, "polyps", number, CLINICAL)
    lesion = sample_lesion(clinical, vienna)
    scene = sample_scene(clinical, True, True)
    nbi = clinical.random() < tables.NBI_SHARE_LABELLED
    return LabelledPolyp(lesion, scene, "nbi" if nbi else "wli")


def _labelled_name(number: int) -> str:
    return f"images/polyp_{number:05d}.jpg"


def _write_labelled(polyps: Path, seed: int, number: int, vienna: int) -> None:
    """The frame of one labelled polyp; kept if there."""
    final = polyps / _labelled_name(number)
    if final.exists():
        return
    plan = plan_labelled(seed, number, vienna)
    pixels = render_frame(
        patient_stream(seed, "polyps", number, FRAMES),
        lesion=plan.lesion,
        scene=plan.scene,
        imaging=plan.imaging,
        indicative=True,
    )
    replace_file(final, encode_jpeg(pixels))


def _write_labelled_tables(
    polyps: Path, seed: int, vienna: Sequence[int], patients: Sequence[str]
) -> None:
    """`labels.csv`, and `truth.jsonl` with what the pictures were drawn from."""
    labels, known = [], []
    for i, (v, patient) in enumerate(zip(vienna, patients, strict=True)):
        plan = plan_labelled(seed, i, v)
        row = {
            "file": _labelled_name(i),
            "polyp": 1,
            "vienna": v,
            "patient": patient,
            "segment": plan.lesion.location,
            "size_class": size_class(plan.lesion.size_mm),
            "imaging": plan.imaging,
        }
        labels.append(row)
        known.append(
            {
                **row,
                "bits": plan.lesion.bits.tolist(),
                "size_mm": plan.lesion.size_mm,
                "form": plan.lesion.form,
                "lst_type": plan.lesion.lst_type,
                "scene": plan.scene,
            }
        )
    replace_file(polyps / "truth.jsonl", json_lines(known))
    table = table_text(_LABELS, labels)
    replace_file(polyps / "labels.csv", table.encode())


# --- the whole -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Job:
    """A stretch of one set, as much as a worker takes at a time."""

    folder: str
    seed: int
    name: str
    numbers: tuple[int, ...]
    frames: int
    vienna: tuple[int, ...] = ()


def _run(job: _Job) -> int:
    """Does a job and returns the number of frames it stands for."""
    if job.name == "polyps":
        for number, vienna in zip(job.numbers, job.vienna, strict=True):
            _write_labelled(Path(job.folder, "polyps"), job.seed, number, vienna)
        return len(job.numbers)
    for number in job.numbers:
        exam = plan_examination(job.seed, job.name, number, job.frames)
        write_examination(Path(job.folder, "records"), exam)
    return len(job.numbers) * job.frames


def _done(jobs: Sequence[_Job], processes: int) -> Iterator[int]:
    if processes <= 1:
        yield from map(_run, jobs)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        yield from pool.map(_run, jobs)


def write_cohort(
    folder: str | os.PathLike[str],
    *,
    seed: int,
    examinations: Mapping[str, int] = EXAMINATIONS,
    frames_per_case: int = 12,
    polyps: int = 400,
    processes: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Writes the cohort into `folder` and returns it; a complete equal one is left as it is.

    examinations: number per split (train, validation, test). polyps: size of the labelled set.
    processes: workers, all cores by default; one works in this process. progress: called with
    (frames written, frames in all). An interrupted run is continued by the same call.

    Raises UserError if `folder` holds another cohort or the numbers make none.
    """
    folder = Path(folder)
    unknown = set(examinations) - set(_SPLITS)
    if unknown:
        raise UserError(f"no such split of the cohort: {', '.join(sorted(unknown))}; use train, "
                        "validation, test")  # fmt: skip
    if frames_per_case < len(tables.P_POLYPS):
        raise UserError(f"{frames_per_case} frames a case cannot show {len(tables.P_POLYPS)} polyps"
                        f"; ask for at least {len(tables.P_POLYPS)}")  # fmt: skip
    if min([polyps, *examinations.values()]) < 0:
        raise UserError("a cohort cannot have a negative number of examinations or polyps")
    counts = {name: int(examinations.get(name, 0)) for name in _SPLITS}
    marker = {
        "version": VERSION,
        "seed": seed,
        "examinations": counts,
        "frames_per_case": frames_per_case,
        "polyps": polyps,
    }
    if _is_complete(folder, marker):
        return folder
    (folder / "records").mkdir(parents=True, exist_ok=True)
    (folder / "polyps" / "images").mkdir(parents=True, exist_ok=True)
    content = json.dumps(marker, indent=1).encode()
    replace_file(folder / "cohort.partial.json", content)

    labelled = patient_stream(seed, "polyps", 0, WHOLE_SET)
    vienna = [int(v) for v in labelled_vienna(labelled, polyps)]
    patients = labelled_patients(labelled, polyps)
    jobs = [
        _Job(str(folder), seed, name, tuple(range(start, min(start + 8, count))), frames_per_case)
        for name, count in counts.items()
        for start in range(0, count, 8)
    ]
    jobs += [
        _Job(str(folder), seed, "polyps", tuple(range(start, start + len(part))), 1, tuple(part))
        for start in range(0, polyps, 96)
        for part in [vienna[start : start + 96]]
    ]
    total = sum(counts.values()) * frames_per_case + polyps
    written = 0
    for frames in _done(jobs, processes or os.cpu_count() or 1):
        written += frames
        if progress:
            progress(written, total)

    exams = [
        plan_examination(seed, name, number, frames_per_case)
        for name, count in counts.items()
        for number in range(count)
    ]
    replace_file(folder / "records" / "truth.jsonl", json_lines([truth(x) for x in exams]))
    manifest = table_text(_MANIFEST, [manifest_row(x) for x in exams])
    replace_file(folder / "records" / "records.csv", manifest.encode())
    _write_labelled_tables(folder / "polyps", seed, vienna, patients)
    replace_file(folder / "cohort.json", content)
    (folder / "cohort.partial.json").unlink()
    return folder


def _is_complete(folder: Path, marker: Mapping[str, Any]) -> bool:
    """Whether this very cohort is there; another one, complete or begun, is a UserError."""
    for name in ("cohort.json", "cohort.partial.json"):
        path = folder / name
        if not path.exists():
            continue
        try:
            found = json.loads(path.read_text("utf-8"))
        except ValueError:
            found = None
        if found != marker:
            raise UserError(f"{folder} already holds another cohort ({name}: {found}); choose "
                            "another folder or delete that one")  # fmt: skip
        return name == "cohort.json"
    return False
