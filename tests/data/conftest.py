"""A small real data set: frames written as a hospital has them, and prepared."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from endoclip_jax.shards.index import Index
from endoclip_jax.shards.prepare import prepare

PATIENTS = 23
"""Patient 0 has two examinations, everyone else one: 24 records."""


def noise_jpeg(rng: np.random.Generator, height: int = 64, width: int = 72) -> bytes:
    """A bright, blotchy frame without surround, different for every draw."""
    blotches = rng.integers(60, 200, (height // 8, width // 8, 3), dtype=np.uint8)
    pixels = np.ascontiguousarray(np.kron(blotches, np.ones((8, 8, 1), np.uint8)))
    return simplejpeg.encode_jpeg(pixels, 95)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data_set")
    records = folder / "records"
    records.mkdir()
    rng = np.random.default_rng(5)
    rows = []
    for exam in range(PATIENTS + 1):
        images = records / f"exam{exam}"
        images.mkdir()
        for frame in range(2 + exam % 5):
            (images / f"{frame}.jpg").write_bytes(noise_jpeg(rng))
        rows.append(
            {
                "patient_id": f"p{exam % PATIENTS}",
                "exam_id": f"e{exam}",
                "report_text": "A sessile polyp was seen in the sigmoid colon." if exam % 2 else
                "The mucosa is normal. No polyp was seen.",
                "images": f"exam{exam}",
                "split": "train",
            }
        )  # fmt: skip
    with (records / "records.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    out = folder / "shards"
    prepare(records, out, long_side=64, workers=1, salt=b"s" * 32, progress=False)
    return out


@pytest.fixture(scope="session")
def index(prepared: Path) -> Index:
    return Index.open(prepared)


@pytest.fixture
def own_copy(prepared: Path, tmp_path: Path) -> Path:
    """The same data set in a folder that a test may damage."""
    return shutil.copytree(prepared, tmp_path / "copy")


@pytest.fixture(scope="session")
def records(index: Index) -> np.ndarray:
    return index.rows("train")


@pytest.fixture(scope="session")
def candidates(index: Index, records: np.ndarray) -> list[np.ndarray]:
    return [index.frame_rows(row) for row in records.tolist()]
