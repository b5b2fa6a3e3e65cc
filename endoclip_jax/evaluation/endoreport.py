"""EndoReport50 and EndoReport100 in the form they are described in, held against published counts.

The sets are restricted, so whoever has them brings them into this form:

    EndoReport50 (Endo-CLIP, section 3.1): FOLDER/detection/labels.csv with 2,308 frames without
    and 608 with a polyp; FOLDER/malignancy/labels.csv with the most indicative frame of each of 84
    polyps of 50 patients, 16 of Vienna class 1 and 68 of 3, 4 or 5.

    EndoReport100 (the group's later work): FOLDER/labels.csv with 7,003 frames of 100 cases, the
    column `patient` naming the case.

A figure that is compared with a paper's has to come from the paper's set: another number of frames
is refused, with the difference, before anything is computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from endoclip_jax.data.labelled import LABELS_FILE, LabelledFrames, read_labelled
from endoclip_jax.errors import UserError
from endoclip_jax.evaluation.evaluate import BENIGN, MALIGNANT

PUBLISHED: Mapping[str, Mapping[str, Mapping[str, int]]] = {
    "endoreport50": {
        "detection": {"frames without a polyp": 2308, "frames with a polyp": 608},
        "malignancy": {
            "polyps of Vienna class 1": 16,
            "polyps of Vienna class 3, 4 or 5": 68,
            "polyps": 84,
            "patients": 50,
        },
    },
    "endoreport100": {".": {"frames": 7003, "cases": 100}},
}
"""Published counts of each protocol, by the folder they are counted in."""


@dataclass(frozen=True)
class LabelledSets:
    """The labelled frames of each task; None where the protocol has none."""

    detection: LabelledFrames | None
    malignancy: LabelledFrames | None


def read_protocol(folder: Path, protocol: str) -> LabelledSets:
    """The protocol's frames, their counts compared with the published ones.

    Raises:
      UserError: naming every count that differs, as found and as published.
    """
    sets = {part: read_labelled(folder / part) for part in PUBLISHED[protocol]}
    differences = [
        f"{found:,} {what} where {expected:,} are published"
        for part, counts in PUBLISHED[protocol].items()
        for what, expected in counts.items()
        if (found := counted(sets[part])[what]) != expected
    ]
    if differences:
        raise UserError(
            f"{folder} is not {protocol}: its {LABELS_FILE} has {'; '.join(differences)}; bring "
            "the whole set, or evaluate without --protocol"
        )
    if protocol == "endoreport50":
        return LabelledSets(sets["detection"], sets["malignancy"])
    frames = sets["."]
    with_classes = {*frames.vienna.tolist()}
    judged = with_classes & set(BENIGN) and with_classes & set(MALIGNANT)
    return LabelledSets(frames, frames if judged else None)


def counted(frames: LabelledFrames) -> dict[str, int]:
    """Everything that a protocol counts, by its name there."""
    patients = len(set(frames.patient))
    return {
        "frames": len(frames),
        "frames with a polyp": int(frames.polyp.sum()),
        "frames without a polyp": int((~frames.polyp).sum()),
        "polyps": int(frames.polyp.sum()),
        "polyps of Vienna class 1": int(np.isin(frames.vienna, BENIGN).sum()),
        "polyps of Vienna class 3, 4 or 5": int(np.isin(frames.vienna, MALIGNANT).sum()),
        "patients": patients,
        "cases": patients,
    }
