from __future__ import annotations

import json

import numpy as np
import simplejpeg

from endoclip_jax.benchmarks.command import run


def test_the_prepare_suite_measures_a_records_folder(tmp_path):
    exam = tmp_path / "records" / "exam"
    exam.mkdir(parents=True)
    (exam / "report.txt").write_text("Findings: A 6 mm sessile polyp in the rectum.")
    for i in range(2):
        noise = np.random.default_rng(i).integers(60, 255, (96, 96, 3), dtype=np.uint8)
        (exam / f"{i}.jpg").write_bytes(simplejpeg.encode_jpeg(noise, 90))
    out = tmp_path / "out"
    line = ["--suite=prepare", f"--records={tmp_path / 'records'}", f"--out={out}", "--pairs=1"]
    assert run(line) == 0
    speed = json.loads((out / "prepare.json").read_text())["speed"]
    assert speed["pictures"] == speed["frames"] == 2 and speed["prepare_one_worker_ms"] > 0
    assert run([*line, "--enlarge=400", "--long_side=64"]) == 0
    speed = json.loads((out / "prepare.json").read_text())["speed"]
    assert speed["enlarged_to"] == 400 and speed["ratio_prepare"]["median"] > 0
    assert simplejpeg.decode_jpeg_header((exam / "0.jpg").read_bytes())[:2] == (96, 96)
