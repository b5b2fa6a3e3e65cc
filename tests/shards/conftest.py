from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import simplejpeg

REPORTS = (
    "Findings: A 6 mm sessile polyp was found in the rectum. The surface was smooth.",
    "Findings: Two polyps. Sigmoid colon: a 12 mm pedunculated polyp, red. "
    "Ascending colon: a 4 mm flat elevated polyp (0-IIa), pale.",
    "Findings: The mucosa was normal throughout. No polyps were seen.",
    "检查所见:升结肠见一枚0-Is型息肉,约0.6cm,表面光滑。余所见肠段未见异常。",
)


def jpeg(seed, size=(64, 80)):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(60, 255, (size[0] // 8, size[1] // 8, 3), dtype=np.uint8)
    return simplejpeg.encode_jpeg(np.ascontiguousarray(coarse.repeat(8, 0).repeat(8, 1)), 90)


@pytest.fixture
def records(tmp_path):
    """Writes records folders: 12 examinations of 3 frames, some with truth beside them."""

    def write(number=12, name="records", **columns):
        folder = tmp_path / name
        rows = []
        for i in range(number):
            exam = folder / f"exam-{i}"
            exam.mkdir(parents=True)
            for k in range(3):
                (exam / f"secret-{k}.jpg").write_bytes(jpeg(100 * i + k))
            (exam / "report.txt").write_text(
                f"Patient: Jane Roe\nDate: 2019-03-12\n{REPORTS[i % len(REPORTS)]}\n"
            )
            rows.append({
                "patient_id": f"PATIENT{i // 2}", "exam_id": f"EXAM{i}",
                "report": f"exam-{i}/report.txt", "images": f"exam-{i}",
                **{key: values.get(i, "") for key, values in columns.items()},
            })  # fmt: skip
        with (folder / "records.csv").open("w", newline="") as stream:
            writer = csv.DictWriter(stream, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        return folder

    return write


@pytest.fixture
def lines():
    """Reads a .jsonl file."""
    return lambda path: [json.loads(line) for line in path.read_text().splitlines()]
