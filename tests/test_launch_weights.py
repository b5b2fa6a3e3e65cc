"""convert.py, a run from converted weights, predict.py and the notebook: files in, files out."""

from __future__ import annotations

import csv
import json
import logging
import math
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import safetensors.torch
import torch
from PIL import Image
from test_launch import ROOT, TINY_STAGES, launch, launch_here
from transformers import CLIPConfig, CLIPModel, CLIPProcessor
from transformers.utils import logging as transformers_logging

import endoclip_jax
from endoclip_jax.errors import UserError
from endoclip_jax.evaluation.prompts import PROMPTS
from endoclip_jax.pipeline.convert import convert
from endoclip_jax.pipeline.convert import parse as parse_convert
from endoclip_jax.pipeline.predict import parse as parse_predict
from endoclip_jax.pipeline.predict import predict, read_prompts
from endoclip_jax.records.frames import field_of_view

transformers_logging.disable_progress_bar()


def convert_here(**flags) -> None:
    convert(parse_convert([f"--{key}={value}" for key, value in flags.items()]))


@pytest.fixture(scope="module")
def given(tmp_path_factory) -> Path:
    """A small CLIP with random weights as a Hugging Face folder."""
    torch.manual_seed(0)
    shared = {"num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(
        vision_config={
            **shared, "hidden_size": 32, "intermediate_size": 128, "image_size": 32,
            "patch_size": 16,
        },
        text_config={**shared, "hidden_size": 16, "intermediate_size": 64},
        projection_dim=16,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("given") / "clip"
    CLIPModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def start(given, tmp_path_factory) -> Path:
    """The same as a checkpoint of ours, by the launcher."""
    folder = tmp_path_factory.mktemp("start") / "checkpoint"
    done = launch("convert.py", f"--source={given}", f"--out={folder}", cwd=folder.parent)
    assert f"--config.init.clip={folder}" in done.stdout
    return folder


@pytest.fixture(scope="module")
def run(start, tmp_path_factory) -> tuple[Path, str]:
    """The demonstration of stage 3 from the converted checkpoint, on larger images; what it said.

    On a bare workdir: it draws a cohort small enough for a test and makes stages 1 and 2 first.
    """
    workdir = tmp_path_factory.mktemp("runs") / "run"
    sizes = {"train": 30, "validation": 6, "test": 4, "frames": 6, "polyps": 5, "side": 48}
    done = launch(
        "main.py",
        "--config=configs/stage3.py",
        f"--workdir={workdir}",
        *[f"--config.cohort.{key}={value}" for key, value in sizes.items()],
        f"--config.init.clip={start}",
        "--config.model.vision.image_size=48",
        *TINY_STAGES,
        "--config.stage1.global_batch=8",
        "--config.loss.implementation=streaming",
        "--config.stage1.accumulate=2",
        "--config.stage2.accumulate=2",
        cwd=workdir.parent,
    )
    return workdir, done.stdout


@pytest.fixture(scope="module")
def workdir(run) -> Path:
    return run[0]


@pytest.fixture(scope="module")
def pictures(tiny_cohort, tmp_path_factory) -> Path:
    """A folder of frames with a sub-folder, something else, and a broken one."""
    folder = tmp_path_factory.mktemp("pictures")
    frames = sorted((tiny_cohort / "polyps").rglob("*.jpg"))[:7]
    (folder / "more").mkdir()
    for number, frame in enumerate(frames):
        place = folder / "more" if number % 2 else folder
        (place / frame.name).write_bytes(frame.read_bytes())
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 not a JPEG")
    (folder / "notes.txt").write_text("not a picture")
    return folder


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_run_takes_its_sizes_from_the_weights_and_interpolates(run):
    workdir, printed = run
    model = json.loads((workdir / "config.json").read_text())["model"]
    assert model["vision"]["width"] == 32 and model["embed_dim"] == 16
    assert model["vision"]["image_size"] == 48
    assert printed.count("interpolated from 2x2 patches (32 pixels) to 3x3 (48 pixels)") == 1


def test_demonstration_makes_what_stage3_needs(run):
    workdir, printed = run
    assert "DEMONSTRATION" in printed and "--config.data.shards=DIR" in printed
    assert "stage3 is done" in printed
    for stage in ("stage2", "stage3"):
        assert f"{stage}: streaming loss of 4 pairs on 1 device (predicted" in printed
    assert not (workdir / "clip").exists()


def test_exported_run_scores_in_pytorch_as_predict_does(workdir, pictures, tmp_path):
    """Frames to probabilities: Pillow, transformers and torch against `predict.py`."""
    table, parquet = tmp_path / "scores.csv", tmp_path / "embeddings.parquet"
    done = launch(
        "predict.py",
        f"--checkpoint={workdir / 'stage3'}",
        f"--images={pictures}",
        "--prompts=P1",
        f"--out={table}",
        f"--embeddings={parquet}",
        "--batch=3",
        cwd=tmp_path,
    )
    assert "7 frames scored" in done.stdout and "1 unreadable" in done.stdout
    rows = read_table(table)
    assert len(rows) == 8 and not list(tmp_path.glob("*.partial"))
    assert {row["file"] for row in rows if not row["cosine:benign"]} == {"broken.jpg"}
    rows = [row for row in rows if row["file"] != "broken.jpg"]
    assert any(row["file"].startswith("more/") for row in rows)

    convert_here(source=workdir / "stage3", to="huggingface", out=tmp_path / "export")
    model = CLIPModel.from_pretrained(tmp_path / "export").eval()
    processor = CLIPProcessor.from_pretrained(tmp_path / "export")
    cross = safetensors.torch.load_file(tmp_path / "export" / "cross_attention.safetensors")
    crops = []
    for row in rows:
        pixels = np.asarray(Image.open(pictures / row["file"]).convert("RGB"))
        top, left, bottom, right = field_of_view(pixels)
        crops.append(Image.fromarray(np.ascontiguousarray(pixels[top:bottom, left:right])))
    words = PROMPTS["malignancy"].sets["P1"]
    prompts = [*words.positive, *words.negative]
    inputs = processor(text=prompts, images=crops, return_tensors="pt", padding=True)
    with torch.no_grad():
        out = model(**inputs)
        v = out.image_embeds @ cross["text_to_image.value.weight"].T
        t = out.text_embeds @ cross["image_to_text.value.weight"].T
        cosine = torch.nn.functional.cosine_similarity(v[:, None], t[None], dim=-1)
        probability = (model.logit_scale.exp() * cosine).softmax(dim=-1).numpy()
    names = ("malignant", "benign")
    ours = np.array([[float(row[f"cosine:{name}"]) for name in names] for row in rows])
    np.testing.assert_allclose(ours, cosine, atol=1e-4)
    ours = np.array([[float(row[f"probability:{name}"]) for name in names] for row in rows])
    np.testing.assert_allclose(ours, probability, atol=1e-4)

    stored = pyarrow.parquet.read_table(parquet)
    assert stored["file"].to_pylist() == [row["file"] for row in rows]
    vectors = np.array(stored["embedding"].to_pylist(), np.float32)
    np.testing.assert_allclose(vectors, out.image_embeds, atol=1e-4)


def test_notebook_runs(workdir, tiny_cohort, monkeypatch):
    """Every code cell of docs/library.ipynb, in order, in one namespace."""
    monkeypatch.setenv("ENDOCLIP_CHECKPOINT", str(workdir / "stage3"))
    monkeypatch.setenv("ENDOCLIP_RECORDS", str(tiny_cohort / "records"))
    notebook = json.loads((ROOT / "docs" / "library.ipynb").read_text(encoding="utf-8"))
    names: dict = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    assert names["embeddings"].shape == (6, 16)
    np.testing.assert_allclose(np.linalg.norm(names["embeddings"], axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(names["scores"].probability.sum(axis=1), 1, atol=1e-5)
    record = names["record"]
    assert len(record.polyp) == len(names["frames"]) == len(record.cosine)
    assert record.cosine.shape[1] == len(record.descriptions)
    assert -1 <= record.match <= 1 if record.descriptions else math.isnan(record.match)


def test_library_embeds_arrays_as_files_and_says_what_it_cuts(start, pictures, caplog):
    model = endoclip_jax.load(start)
    files = sorted(pictures.glob("*.jpg"))[1:]
    arrays = [np.asarray(Image.open(file)) for file in files]
    np.testing.assert_allclose(model.embed_images(files), model.embed_images(arrays), atol=1e-5)
    assert model.embed_images([]).shape == (0, 16) == model.embed_texts([]).shape
    with pytest.raises(UserError, match=r"broken\.jpg"):
        model.embed_images([pictures / "broken.jpg"])
    with caplog.at_level(logging.WARNING):
        model.embed_texts(["polyp " * 100, "polyp"])
    assert "1 of 2 texts" in caplog.text


def test_run_that_pins_another_model_is_refused(start, tiny_shards, tmp_path):
    with pytest.raises(UserError, match=r"model\.activation=quick_gelu.*gelu"):
        launch_here(
            "--config=configs/stage1.py",
            f"--workdir={tmp_path / 'run'}",
            f"--config.data.shards={tiny_shards}",
            f"--config.init.clip={start}",
            "--config.model.activation=gelu",
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "flags, named",
    [
        ({"images": "nowhere"}, "no pictures"),
        ({"prompts": "one sentence"}, "two different"),
        ({"prompts": "nothing.json"}, r"nothing\.json"),
        ({"checkpoint": "nowhere"}, "nowhere is not there"),
        ({"batch": "0"}, "--batch=0"),
    ],
)
def test_predict_says_what_is_wrong(start, pictures, tmp_path, flags, named):
    given = {"checkpoint": start, "images": pictures, "out": tmp_path / "x.csv"} | flags
    with pytest.raises(UserError, match=named):
        predict(parse_predict([f"--{key}={value}" for key, value in given.items()]))
    assert not list(tmp_path.iterdir())


def test_prompts_come_from_files_too(tmp_path):
    lines, named = tmp_path / "a.txt", tmp_path / "b.json"
    lines.write_text("A polyp.\n\nNormal mucosa.\n")
    named.write_text(json.dumps({"x": ["one", "two"], "y": ["three"]}))
    assert read_prompts(str(lines)) == {
        "A polyp.": ["A polyp."],
        "Normal mucosa.": ["Normal mucosa."],
    }
    assert read_prompts(str(named)) == {"x": ["one", "two"], "y": ["three"]}
    assert list(read_prompts("a | b")) == ["a", "b"]
    named.write_text(json.dumps({"x": "one"}))
    with pytest.raises(UserError, match="class"):
        read_prompts(str(named))


def test_convert_never_overwrites(start):
    with pytest.raises(UserError, match="not empty"):
        convert_here(source=start, to="huggingface", out=start)
