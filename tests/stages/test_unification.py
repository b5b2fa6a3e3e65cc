"""Stage 3 from prepared shards to loss and gradients, against the oracles; which texts it sees."""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import cross_attention as attention_oracle
from reference import losses as loss_oracle

from endoclip_jax.data.selection import Selection, keep_top
from endoclip_jax.data.tokenizer import load_tokenizer
from endoclip_jax.models.clip import CLIP, CLIPConfig, TextConfig, VisionConfig
from endoclip_jax.models.cross_attention import CrossAttention
from endoclip_jax.objectives.dense import contrastive_loss
from endoclip_jax.objectives.streaming import streaming_loss
from endoclip_jax.records.attributes import NUM_BITS, aspect_slice
from endoclip_jax.shards.index import ITEM, RECORD, TEXT_FILE, Index
from endoclip_jax.stages import cases
from endoclip_jax.stages.noise import NO_NOISE
from endoclip_jax.stages.stage import PreparedStage, Setting, encode_images, encode_texts
from endoclip_jax.stages.unification import _texts_and_unions, largest_first, unification
from endoclip_jax.training.accumulation import in_parts
from endoclip_jax.training.sharding import data_mesh, replicate, shard_batch

DIM = 8
MODEL = CLIP(
    CLIPConfig(
        vision=VisionConfig(image_size=16, patch_size=8, width=8, layers=1, heads=1),
        text=TextConfig(width=8, layers=1, heads=1),
        embed_dim=DIM,
    )
)
NORM = "power(4)"


@pytest.fixture(scope="module")
def setting(tiny_shards) -> Setting:
    return Setting(Index.open(tiny_shards), MODEL, load_tokenizer(), seed=0)


@pytest.fixture(scope="module")
def selection(setting) -> Selection:
    """Half the frames of every positive patient, scored at random."""
    index = setting.index
    rows = cases.positives(index, index.rows())
    frames = np.concatenate(cases.all_frames(index, rows))
    records = np.asarray(index.frames["record"][frames], np.int64)
    scores = np.random.default_rng(0).normal(size=len(frames)).astype(np.float32)
    kept = keep_top(scores, records, 0.5)
    return Selection.create(index, frames=frames, scores=scores, kept=kept, meta={})


def stage_of(
    setting: Setting,
    selection: Selection,
    mode: str,
    contrastive=contrastive_loss,
    include_single: bool = False,
) -> PreparedStage:
    return unification(
        setting, CrossAttention(DIM, mode), selection=selection, global_batch=3,
        target="morphology", target_norm=NORM, temperature="learned", max_images=2, max_texts=2,
        include_single=include_single, contrastive=contrastive,
    )  # fmt: skip


@functools.cache
def clip_params() -> dict:
    pixels, ids = np.zeros((1, 16, 16, 3), np.float32), np.full((1, 8), 49407)
    return jax.jit(MODEL.init)(jax.random.key(0), pixels, ids)["params"]


@functools.cache
def encoders():
    return jax.jit(functools.partial(encode_images, MODEL)), jax.jit(
        functools.partial(encode_texts, MODEL)
    )


def cross_params(mode: str) -> dict:
    """Kernels away from the identity; none where the mode has none."""
    if mode == "none":
        return {}
    rng = np.random.default_rng(1)
    kernel = lambda: (np.eye(DIM) + 0.3 * rng.normal(size=(DIM, DIM))).astype(np.float32)  # noqa: E731
    return {
        direction: {name: {"kernel": kernel()} for name in ("query", "key", "value")}
        for direction in ("image_to_text", "text_to_image")
    }


def expected_loss(mode: str, params: dict, batch: dict) -> dict:
    """The loss of a completed batch by the float64 oracles, from the towers' own features."""
    encode_image, encode_text = encoders()
    b, k = batch["image"].shape[:2]
    l = batch["ids"].shape[1]  # noqa: E741
    v = encode_image(params, batch["image"].reshape(b * k, *batch["image"].shape[2:]))
    t = encode_text(params, batch["ids"].reshape(b * l, -1))
    v = np.asarray(v, np.float64).reshape(b, k, DIM)
    t = np.asarray(t, np.float64).reshape(b, l, DIM)
    images = [list(x[m]) for x, m in zip(v, batch["image_mask"], strict=True)]
    texts = [list(x[m]) for x, m in zip(t, batch["text_mask"], strict=True)]
    weights = {
        direction: {name: np.asarray(w["kernel"], np.float64).T for name, w in kernels.items()}
        for direction, kernels in params.get("cross", {}).items()
    }
    if mode == "pairwise":
        cosines = attention_oracle.pairwise_similarity(images, texts, weights)
    else:
        v_hat, t_hat = attention_oracle.patient_vectors(
            images, texts, weights, attention=mode == "literal"
        )
        cosines = v_hat @ t_hat.T
    return loss_oracle.similarity_loss(
        cosines, float(params["clip"]["logit_scale"]), batch["union"], batch["union"],
        target="morphology", norm=("power", 4.0),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("mode", "implementation", "parts"),
    [
        ("literal", "dense", 1),
        ("literal", "streaming", 2),
        ("pairwise", "dense", 3),
        ("none", "dense", 1),
    ],
)
def test_loss_of_real_batches_equals_the_oracle_and_trains_every_part(
    setting, selection, mode, implementation, parts
):
    """Three patients, laid over eight devices: five rows of padding take no part."""
    form = streaming_loss(data_mesh()) if implementation == "streaming" else contrastive_loss
    stage = stage_of(setting, selection, mode, form)
    if parts > 1:
        stage = dataclasses.replace(stage, combine=functools.partial(in_parts, parts=parts))
    params = {"clip": clip_params(), "cross": cross_params(mode)}
    batch = jax.device_get(stage.on_device(stage.complete(stage.batches.at(0))))
    assert batch["image"].shape == (3, 2, 16, 16, 3) and batch["valid"].all()
    mesh = data_mesh()
    step = jax.jit(jax.value_and_grad(stage.loss, has_aux=True))
    (value, terms), gradients = step(replicate(params, mesh), shard_batch(batch, mesh))
    expected = expected_loss(mode, params, batch)
    np.testing.assert_allclose(value, expected["loss"], rtol=2e-5)
    np.testing.assert_allclose(terms["entropy"], expected["entropy"], rtol=2e-5)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    moved = {
        name: max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(part))
        for name, part in {**gradients["clip"], **gradients["cross"]}.items()
    }
    names = {"vision", "text", "logit_scale"} | set(params["cross"])
    assert moved.keys() == names and all(size > 0 for size in moved.values())


def test_validation_batches_are_held_out_patients_and_have_the_same_loss(setting, selection):
    stage = stage_of(setting, selection, "none")
    assert stage.validation is not None
    held_out = set(cases.multi_polyp(setting.index, setting.index.rows("validation")).tolist())
    params = {"clip": clip_params(), "cross": {}}
    loss = jax.jit(stage.loss)
    for step in range(stage.validation.steps_per_epoch):
        loaded = stage.validation.at(step)
        assert set(loaded["record"][loaded["valid"]].tolist()) <= held_out
        batch = stage.complete(loaded)
        value, _ = loss(params, batch)
        keep = np.flatnonzero(batch["valid"])
        expected = expected_loss("none", params, {k: x[keep] for k, x in batch.items()})
        np.testing.assert_allclose(value, expected["loss"], rtol=2e-5)


def index_of(folder: Path, bits: list[list[np.ndarray]]) -> Index:
    """An index of records whose items have these bits; descriptions are numbered throughout."""
    flat = [(record, own) for record, items in enumerate(bits) for own in items]
    texts = [f"a lesion of number {number}".encode() for number in range(len(flat))]
    records, items = np.zeros(len(bits), RECORD), np.zeros(len(flat), ITEM)
    records["num_items"] = [len(own) for own in bits]
    records["first_item"] = np.cumsum(records["num_items"]) - records["num_items"]
    records["item_count"] = records["num_items"]
    items["record"] = [record for record, _ in flat]
    items["bits_text"] = np.reshape([own for _, own in flat], (-1, NUM_BITS))
    items["text_length"] = [len(text) for text in texts]
    items["text_offset"] = np.cumsum(items["text_length"]) - items["text_length"]
    (folder / TEXT_FILE).write_bytes(b"".join(texts))
    empty = np.zeros(0, np.int64)
    tables = {"records": records, "items": items, "frames": empty, "polyps": empty}
    return Index(folder, {"fingerprint": "", "shards": []}, tables)


item_bits = st.builds(
    lambda size, seed: with_size(np.random.default_rng(seed).random(NUM_BITS) < 0.15, size),
    st.integers(-1, 3),
    st.integers(0, 10_000),
)


def with_size(bits: np.ndarray, size: int) -> np.ndarray:
    """The bits with this size class alone, or with none for -1."""
    bits = bits.astype(np.uint8)
    bits[aspect_slice("size_class")] = np.arange(4) == size
    return bits


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    bits=st.lists(st.lists(item_bits, min_size=1, max_size=5), min_size=1, max_size=4),
    max_texts=st.integers(1, 6),
)
def test_unions_are_taken_before_texts_are_left_out(bits, max_texts):
    with tempfile.TemporaryDirectory() as folder:
        index = index_of(Path(folder), bits)
        notes: list[str] = []
        setting = Setting(index, MODEL, load_tokenizer(), seed=0)
        texts, unions = _texts_and_unions(index, index.rows(), max_texts, setting, notes, NO_NOISE)
    left_out = sum(max(0, len(own) - max_texts) for own in bits)
    assert bool(notes) == bool(left_out)
    assert all(note.startswith(f"{left_out} descriptions") for note in notes)
    number = 0
    for row, own in enumerate(bits):
        for attribute in range(NUM_BITS):
            assert unions[row, attribute] == any(x[attribute] for x in own)
        sizes = [int(x[aspect_slice("size_class")] @ [1, 2, 3, 4]) for x in own]
        largest = sorted(range(len(own)), key=lambda i: (-sizes[i], i))[:max_texts]
        assert texts["mask"][row].tolist() == [
            i < len(largest) for i in range(len(texts["mask"][row]))
        ]
        wanted, _ = load_tokenizer()(
            [f"a lesion of number {number + i}" for i in largest], texts["ids"].shape[-1]
        )
        np.testing.assert_array_equal(texts["ids"][row][texts["mask"][row]], wanted)
        number += len(own)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(bits=st.lists(item_bits, max_size=6))
def test_largest_first_is_a_stable_order_of_all_items(bits):
    with tempfile.TemporaryDirectory() as folder:
        index = index_of(Path(folder), [bits])
        items = largest_first(index, index.item_rows(0))
    assert sorted(items.tolist()) == list(range(len(bits)))
    sizes = [int(bits[i][aspect_slice("size_class")] @ [1, 2, 3, 4]) for i in items]
    ranked = list(zip([-size for size in sizes], items.tolist(), strict=True))
    assert ranked == sorted(ranked)


@pytest.mark.parametrize("include_single", [False, True])
def test_single_polyp_patients_come_only_when_asked_for(setting, selection, include_single):
    index = setting.index
    stage = stage_of(setting, selection, "literal", include_single=include_single)
    drawn = [stage.batches.at(step) for step in range(4 * stage.batches.steps_per_epoch)]
    seen = {int(r) for batch in drawn for r in batch["record"][batch["valid"]]}
    counts = {int(index.records["item_count"][row]) for row in seen}
    assert min(counts) == (1 if include_single else 2) and max(counts) > 1
    for batch in map(stage.complete, drawn):
        assert batch["text_mask"].any(axis=1).all() and batch["union"].any(axis=1).all()
