"""The speed suites end to end at the smallest sizes: same work on both sides, never a time."""

from __future__ import annotations

import json
from functools import cache
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import simplejpeg
import torch

from endoclip_jax.benchmarks import growth, loader, loss, opening, peer, step, timing
from endoclip_jax.benchmarks.command import run
from endoclip_jax.benchmarks.material import Size
from endoclip_jax.data.augmentation import DRAWS, augment, draw_augmentation
from endoclip_jax.data.source import Faults, FrameReader
from endoclip_jax.data.transforms import decode_onto
from endoclip_jax.errors import UserError
from endoclip_jax.models.clip import CLIPConfig, TextConfig, VisionConfig
from endoclip_jax.shards.index import Index
from endoclip_jax.training.sharding import data_mesh

MICRO = Size(
    CLIPConfig(
        vision=VisionConfig(image_size=16, patch_size=8, width=16, layers=2, heads=2),
        text=TextConfig(width=16, layers=2, heads=2, context_length=24),
        embed_dim=8,
    ),
    batches=(6, 4, 3),
    max_images=3,
    max_texts=2,
    learning_rate=1e-3,
    examinations=24,
)
STEP = ["--suite=step", "--size=tiny", "--batch=5", "--pairs=2", "--text_length=16", "--threads=1"]


@pytest.fixture(autouse=True, scope="module")
def micro():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(step.SIZES, "tiny", MICRO)  # one dictionary, which all suites share
        patch.setattr(step, "_SIDE", 64)
        yield


@pytest.fixture(scope="module")
def suite(tmp_path_factory, tiny_shards):
    """What a suite writes at the smallest size, run once; and the folder of all of them."""
    folder = tmp_path_factory.mktemp("results")
    data = [f"--shards={tiny_shards}", "--frames=16", "--pairs=1"]
    arguments = {
        "step": STEP[1:],
        "loss": ["--devices=0", "--memory=64", "--time=64", "--targets=l1", "--pairs=1"],
        "loader": [*data, "--image_size=16", "--batch=8"],
        "prepare": ["--frames=4", "--pairs=1"],
        "score": [*data, "--size=tiny", "--batch=8"],
        "open": ["--patients=300", "--frames=5000", "--times=1"],
    }

    @cache
    def content(name):
        assert run([f"--suite={name}", *arguments[name], f"--out={folder}"]) == 0
        return written(folder, name)

    return SimpleNamespace(content=content, folder=folder, names=tuple(arguments))


def written(folder, name):
    return json.loads((folder / f"{name}.json").read_text())


def test_both_sides_of_a_train_step_lose_alike(suite, capsys):
    """Four updates of both stages in float32: every form of the peer walks the same way."""
    content = suite.content("step")
    assert {"hardware", "versions", "commit", "command", "load_at_start"} <= content.keys()
    assert [row["stage"] for row in content["rows"]] == ["stage1", "stage2"]
    for row in content["rows"]:
        assert set(row["peers"]) == {"published", "plain", "shortcuts"} and not row["skipped"]
        assert len(row["losses"]) == 4 and len(set(row["losses"][1:])) == 3
        for found in row["peers"].values():
            np.testing.assert_allclose(found["losses"], row["losses"], rtol=2e-5)
            assert found["same_loss"] and len(found["seconds"]["wall"]["turns"]) == 2
            assert found["ratio"]["wall"]["low"] <= found["ratio"]["wall"]["high"]
            # Of one turn: peer over the product's time, scaled from its FLOPs to the step's.
            scale = row["model_flops"] / (2 * 64**3)
            turns = np.asarray(found["seconds"]["wall"]["turns"])
            bounds = turns / (np.asarray(row["product"]["wall"]["turns"]) * scale)
            np.testing.assert_allclose(found["bound"]["wall"]["median"], np.median(bounds))
    assert "plain:" in capsys.readouterr().out


def test_a_peer_that_computes_something_else_fails_the_suite(tmp_path, monkeypatch):
    def hard(logits, similarity):
        return torch.nn.functional.cross_entropy(logits, torch.arange(len(logits)))

    monkeypatch.setattr(peer, "_soft", hard)
    arguments = [*STEP, "--stages=stage2", "--peers=plain", f"--out={tmp_path}"]
    assert run(arguments) == 1
    (row,) = written(tmp_path, "step")["rows"]
    assert not row["peers"]["plain"]["same_loss"]


def test_what_is_not_installed_is_named(tmp_path, monkeypatch, capsys):
    found = step.importlib.util.find_spec
    monkeypatch.setattr(
        step.importlib.util, "find_spec", lambda name: None if name == "torch" else found(name)
    )
    arguments = [*STEP, "--stages=stage2", "--peers=plain", "--compile=too", f"--out={tmp_path}"]
    assert run(arguments) == 0
    (row,) = written(tmp_path, "step")["rows"]
    assert row["peers"] == {} and set(row["skipped"]) == {"plain", "plain, torch.compile"}
    assert "plain: left out, torch is not installed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--peers=fast", "fast are not all of published, plain, shortcuts"),
        ("--batch=few", "--batch is 'few': give positive numbers"),
        ("--text_length=25", "--text_length=25: 2 to 24"),
    ],
)
def test_a_wrong_argument_is_said(argument, message, tmp_path):
    with pytest.raises(UserError, match=message):
        run([*STEP, argument, f"--out={tmp_path}"])


def test_loader_suite_counts_bytes_exactly(suite):
    (row,) = suite.content("loader")["rows"]
    assert set(row["ratios"]) == {
        "decoding", "our decoding", "ours, augmented", "DataLoader", "DataLoader, our decoding",
        "DataLoader, both augmented",
    }  # fmt: skip
    read = row["bytes"]
    assert row["frames"] == read["frames"] == 16
    assert 1 <= read["ratio"] <= 1.05 and read["read"] >= read["of_the_frames"] > 0


def test_bytes_asked_of_the_files_are_those_of_the_frames(tiny_shards, monkeypatch):
    """Where the kernel does not count."""
    monkeypatch.setattr(loader, "_rchar", lambda: None)
    index = Index.open(tiny_shards)
    records = index.rows("train")
    batches = loader.frame_batches(
        index, records=records, candidates=[index.frame_rows(int(row)) for row in records],
        global_batch=8, seed=0, stream="s", image_size=16, train=True,
    )  # fmt: skip
    read = loader.bytes_read(batches, index, steps=2)
    frames = np.concatenate([batches.at(step)["frame"] for step in range(2)])
    assert read["read"] == sum(int(index.frames["length"][frame]) for frame in frames)
    assert (read["counted_by"], read["ratio"]) == ("files", 1.0)


def test_torch_loads_the_same_pictures(tiny_shards, tmp_path):
    """Alike but for the draws: means of many augmented frames agree."""
    from endoclip_jax.benchmarks.torch_frames import FrameFiles

    index = Index.open(tiny_shards)
    jpegs = [loader.read_frame(index, frame) for frame in range(24)]
    paths = loader._files(tmp_path / "files", jpegs)
    canvas = FrameReader(index, Faults()).canvas(np.arange(24), 16)
    ours, theirs = (FrameFiles(paths, 16, own, seed=0) for own in (canvas, None))
    pairs = [
        (np.asarray(augment(*(part.numpy() for part in ours[i]), 16)), theirs[i][0].numpy())
        for i in range(24)
    ]
    assert all(a.shape == b.shape == (16, 16, 3) and b.dtype == np.uint8 for a, b in pairs)
    means = np.asarray([[a.mean((0, 1)), b.mean((0, 1))] for a, b in pairs])
    assert np.abs(means[:, 0] - means[:, 1]).mean() < 15
    assert np.corrcoef(means[:, 0].ravel(), means[:, 1].ravel())[0, 1] > 0.8
    rng = np.random.default_rng((0, 3))
    pixels = np.zeros((*canvas, 3), np.uint8)
    numbers = draw_augmentation(*decode_onto(pixels, jpegs[3], 16), rng.random(DRAWS))
    np.testing.assert_array_equal(ours[3][0].numpy(), pixels)
    np.testing.assert_allclose(ours[3][1].numpy(), numbers, rtol=1e-6)


def test_score_suite(suite):
    (row,) = suite.content("score")["rows"]
    assert (row["frames"], row["image_size"]) == (16, 16) and row["ratio"]["cpu"]["median"] > 0


def test_open_suite_writes_and_opens_a_data_set(suite):
    (row,) = suite.content("open")["rows"]
    assert (row["records"], row["frames"]) == (300, 5000)
    assert 0 < row["memory_added"] < row["memory_used"]


def test_a_written_index_holds_together(tmp_path):
    opening.write_index(tmp_path, 50, 700, seed=1)
    index = Index.open(tmp_path)
    rows = [index.frame_rows(row) for row in range(50)]
    np.testing.assert_array_equal(np.concatenate(rows), np.arange(700))
    for record, frames in enumerate(rows):
        assert (index.frames["record"][frames] == record).all()
        assert index.frames["ordinal"][frames].tolist() == list(range(len(frames)))
    assert [len(index.rows(split)) for split in ("train", "validation", "test")] == [40, 5, 5]
    assert index.description(7).startswith("A 6 mm")


def test_growth_has_a_row_for_every_size_and_a_plot(tmp_path):
    sizes = {"batches": [4], "devices": [1, 2], "frames": [50], "indexed": [700]}
    rows = growth.grow(MICRO.model, batch=4, times=1, seed=0, **sizes)
    assert [len(rows[name]) for name in ("step_by_batch", "step_by_devices")] == [1, 2]
    assert rows["pass_by_frames"][0]["resident"] > 0
    growth.draw(rows, tmp_path / "growth.png")
    assert (tmp_path / "growth.png").stat().st_size > 10_000


def test_table_is_made_from_the_json_alone(suite, tmp_path, capsys):
    """Every row of every suite, the goals, and the machine."""
    contents = {name: suite.content(name) for name in suite.names}
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- figures: begin -->\nold\n<!-- figures: end -->\nafter\n")
    assert run(["--suite=table", f"--results={suite.folder}", f"--into={page}"]) == 0
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    peer = contents["step"]["rows"][1]["peers"]["plain"]
    (line,) = [x for x in text.splitlines() if "stage2" in x and "CLIPModel, plain" in x]
    assert f"{peer['ratio']['wall']['median']:.2f}" in line
    assert f"≥ 2.0; at most {peer['bound']['wall']['median']:.2f} possible" in line
    (line,) = [x for x in text.splitlines() if "streaming loss" in x]
    ratio = contents["loss"]["time"][0]["ratio"]["cpu"]["median"]
    assert "8 devices, l1, 64 pairs" in line and f"| {ratio:.2f} (" in line
    (line,) = [x for x in text.splitlines() if "prepare, a frame" in x]
    ratio = contents["prepare"]["speed"]["ratio_frame"]["median"]
    assert f"| {ratio:.2f} (" in line and "≥ 0.8" in line
    for work in ("stage1 train step", "frame loader", "scoring pass", "opening 300 patients"):
        assert work in text
    assert "torch" in text and "commit" in text
    for content in contents.values():
        assert "--out" not in content["command"] and f"`{content['command']}`" in text
    assert run(["--suite=table", f"--results={suite.folder}", "--goals"]) == 0
    printed = capsys.readouterr().out.splitlines()
    rows = [x for x in text.splitlines() if x.startswith("|")]
    goals = [x for x in rows[2:] if x.split(" | ")[-1][0] in "≥≤<"]
    assert 0 < len(goals) < len(rows) - 2
    assert rows[:2] + goals == [x for x in printed if x.startswith("|")]
    page.write_text("no place")
    with pytest.raises(UserError, match="has no place for the table"):
        run(["--suite=table", f"--results={suite.folder}", f"--into={page}"])
    with pytest.raises(UserError, match="has no figures yet"):
        run(["--suite=table", f"--results={tmp_path}"])


def test_a_whole_step_has_the_same_losses_with_the_streaming_loss():
    row = loss.compare_steps("tiny", data_mesh(jax.devices()[:1]), batch=5, pairs=2)
    dense, streaming = row["losses"]["dense"], row["losses"]["streaming"]
    assert len(dense) == 3 and dense[2] != dense[1]
    np.testing.assert_allclose(streaming, dense, rtol=1e-6)
    with pytest.raises(UserError, match="--steps takes whole train steps on one device"):
        run(["--suite=loss", "--devices=0", "--memory=", "--steps=4", "--size=tiny"])


def test_frames_can_be_made_as_large_as_originals(tmp_path):
    index = loader.drawn(tmp_path, examinations=1, long_side=96, seed=0, original_side=200)
    height, width = simplejpeg.decode_jpeg_header(loader.read_frame(index, 0))[:2]
    assert max(height, width) == 96


def test_turns_are_interleaved_and_warm_up_stands_apart():
    called = []
    sides = {name: lambda name=name: called.append(name) for name in "ab"}
    turns, warming = timing.take_turns(sides, pairs=3, warmup=2)
    assert called == ["a", "b"] * 5
    assert {name: rows.shape for name, rows in turns.items()} == {"a": (3, 2), "b": (3, 2)}
    assert set(warming) == {"a", "b"}


def test_a_ratio_is_that_of_its_turn():
    slower, faster = np.array([[2.0, 1], [9, 1], [40, 1]]), np.array([[1.0, 1], [3, 1], [10, 1]])
    ratio = timing.ratio_of(slower, faster)["wall"]
    assert ratio == {"median": 3.0, "low": 2.5, "high": 3.5}
