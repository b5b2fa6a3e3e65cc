"""FLOPs of a step against a count by hand; rates; traces that are really there."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
import small_stage
from jax.sharding import PartitionSpec
from small_stage import STEPS, run

from endoclip_jax.configuration import read_command_line
from endoclip_jax.errors import UserError
from endoclip_jax.models.clip import CLIP, VIT_B32, CLIPConfig, TextConfig, VisionConfig
from endoclip_jax.training import throughput
from endoclip_jax.training.accumulation import in_parts
from endoclip_jax.training.metrics import read_metrics
from endoclip_jax.training.sharding import data_mesh
from endoclip_jax.training.throughput import Throughput, model_flops, peak_flops

ROOT = Path(__file__).resolve().parents[2]
CONFIG = CLIPConfig(
    vision=VisionConfig(image_size=24, patch_size=8, width=32, layers=3, heads=4),
    text=TextConfig(width=16, layers=2, heads=2, vocab_size=99, context_length=12),
    embed_dim=8,
)


def tower(tokens, width, layers, embed_dim):
    """By hand, forward, one sample: the last block has one query, and keys and values of all."""
    block = 2 * tokens * width * (3 + 1 + 8) * width + 2 * 2 * tokens**2 * width
    last = 2 * width * (1 + 1 + 8) * width + 2 * tokens * width * 2 * width + 4 * tokens * width
    return (layers - 1) * block + last + 2 * width * embed_dim


def by_hand(config, rows, texts, length):
    vision, text = config.vision, config.text
    patches = (vision.image_size // vision.patch_size) ** 2
    image = 2 * patches * 3 * vision.patch_size**2 * vision.width
    image += tower(patches + 1, vision.width, vision.layers, config.embed_dim)
    return 3 * (rows * image + texts * tower(length, text.width, text.layers, config.embed_dim))


def features(model):
    return lambda params, batch: model.apply({"params": params}, batch["pixels"], batch["ids"])[:2]


def shapes(config, rows, length):
    size = config.vision.image_size
    batch = {
        "pixels": jax.ShapeDtypeStruct((rows, size, size, 3), jnp.float32),
        "ids": jax.ShapeDtypeStruct((rows, length), jnp.int32),
    }
    params = jax.eval_shape(
        CLIP(config).init, jax.random.key(0), *(value for value in batch.values())
    )["params"]
    return params, batch


@pytest.mark.parametrize("remat", ["none", "full"])
def test_flops_are_those_of_the_model(remat):
    params, batch = shapes(CONFIG, 5, 10)
    counted = model_flops(features(CLIP(CONFIG, remat=remat)), params, batch)
    assert counted == by_hand(CONFIG, 5, 5, 10)


def test_flops_in_parts_are_those_of_the_whole():
    params, batch = shapes(CONFIG, 6, 10)

    def contrast(params, towers, batch):
        return jnp.sum(towers[0] + towers[1]), {}

    loss = in_parts(features(CLIP(CONFIG)), contrast, parts=3)
    assert model_flops(loss, params, batch) == by_hand(CONFIG, 6, 6, 10)


def test_flops_of_a_program_written_for_one_device_count_on_each():
    mesh = data_mesh(jax.devices()[:4])
    split = PartitionSpec(("data", "fsdp"))

    def product(params, batch):
        def here(x):
            return x @ params

        return jax.shard_map(here, mesh=mesh, in_specs=split, out_specs=split)(batch["x"])

    batch = {"x": jax.ShapeDtypeStruct((8, 5), jnp.float32)}
    counted = model_flops(product, jax.ShapeDtypeStruct((5, 7), jnp.float32), batch)
    assert counted == 3 * 2 * 8 * 5 * 7


def test_vit_b32_takes_what_is_published():
    """44.33 GFLOP a pair at 77 tokens, less what the last blocks need not compute."""
    vision, text = VIT_B32.vision, VIT_B32.text
    less = 0.0
    for tokens, width in ((50, vision.width), (77, text.width)):
        full = 2 * tokens * width * 12 * width + 4 * tokens**2 * width
        needed = 20 * width**2 + 4 * tokens * width**2 + 4 * tokens * width
        less += 3 * (full - needed)
    assert (by_hand(VIT_B32, 1, 1, text.context_length) + less) / 1e9 == pytest.approx(
        44.33, rel=5e-3
    )


def test_rates_and_their_share(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(throughput.time, "monotonic", lambda: now[0])
    rates = Throughput(flops=8e12, devices=4, peak=1e13)
    rates.start(10)
    assert rates.report(10) == {}
    now[0] += 2
    assert rates.report(15) == {"steps_per_second": 2.5, "teraflops_per_device": 5.0, "mfu": 0.5}
    assert "mfu" not in Throughput(8e12, 4, None).report(1)


@pytest.mark.parametrize(
    ("kind", "dtype", "rate"),
    [
        ("NVIDIA H200", "bfloat16", 989e12),
        ("NVIDIA A100-SXM4-80GB", "bfloat16", 312e12),
        ("TPU v5 lite", "bfloat16", 197e12),
        ("NVIDIA H200", "float32", None),
        ("cpu", "bfloat16", None),
    ],
)
def test_peak_of_known_devices(kind, dtype, rate):
    assert peak_flops(kind, dtype) == rate


def test_the_flag_sets_how_many_steps_are_traced():
    line = ["main.py", "--config=configs/stage1.py"]
    assert read_command_line(line, ROOT)[0].log.profile == 0
    assert read_command_line([*line, "--profile=3"], ROOT)[0].log.profile == 3
    with pytest.raises(UserError, match="profile"):
        read_command_line([*line, "--profile=-1"], ROOT)


def test_a_run_writes_a_trace_and_its_rates(tmp_path, monkeypatch):
    said = []
    plan = small_stage.Plan
    monkeypatch.setattr(small_stage, "Plan", lambda *a: replace(plan(*a), profile=2))
    run(tmp_path / "traced", say=said.append)
    run(tmp_path / "plain", say=lambda _: None)
    assert any(line.startswith("regression: first step after ") for line in said)
    assert any("traced steps 3 to 4" in line for line in said)
    (trace,) = (tmp_path / "traced" / "profile").rglob("perfetto_trace.json.gz")
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    steps = {event["args"]["step_num"] for event in events if event.get("name") == "train"}
    assert {int(step) for step in steps} == {3, 4}
    assert list((tmp_path / "traced" / "profile").rglob("*.xplane.pb"))
    rows = [row for row in read_metrics(tmp_path / "traced") if row["split"] == "train"]
    assert len(rows) == STEPS and not any("per_second" in name for row in rows for name in row)
