"""DINO and SSCD from prepared shards to updates: what moves, what stays, and resume to the bit."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import copy_detection as sscd_oracle
from reference import distillation as dino_oracle

from endoclip_jax.data.crops import Recipe, augmented, crop_box
from endoclip_jax.data.tokenizer import load_tokenizer
from endoclip_jax.errors import UserError
from endoclip_jax.models import clip
from endoclip_jax.models.clip import CLIP, CLIPConfig, TextConfig, VisionConfig
from endoclip_jax.models.positions import image_features, resized_positions
from endoclip_jax.models.prototypes import PrototypeHead
from endoclip_jax.shards.index import Index
from endoclip_jax.stages import dino as dino_stage
from endoclip_jax.stages.dino import dino, dino_params
from endoclip_jax.stages.sscd import FROZEN as SSCD_FROZEN
from endoclip_jax.stages.sscd import STRONG_BLUR, sscd
from endoclip_jax.stages.stage import PreparedStage, Setting
from endoclip_jax.training import checkpoints
from endoclip_jax.training.accumulation import in_parts
from endoclip_jax.training.loop import Plan, train
from endoclip_jax.training.optimizer import Schedule, make_optimizer
from endoclip_jax.training.sharding import data_mesh, shard_batch

MODEL = CLIP(
    CLIPConfig(
        vision=VisionConfig(image_size=16, patch_size=8, width=8, layers=1, heads=1),
        text=TextConfig(width=8, layers=1, heads=1, vocab_size=16, context_length=8),
        embed_dim=8,
    )
)
HEAD = PrototypeHead(prototypes=12, hidden=8, bottleneck=6)
BATCH, STEPS, MOMENTUM = 18, 4, 0.9  # two steps an epoch
KEY_BIAS = (jax.tree_util.DictKey("qkv"), jax.tree_util.DictKey("bias"))
SSCD = {"temperature": 0.2, "entropy_weight": 2.0, "mix_odds": 0.5}


@functools.cache
def setting_of(shards, process: int = 0, processes: int = 1) -> Setting:
    return Setting(
        Index.open(shards), MODEL, load_tokenizer(), seed=0,
        process_index=process, process_count=processes,
    )  # fmt: skip


def dino_of(setting: Setting, local_size: int = 8) -> PreparedStage:
    return dino(
        setting, HEAD, global_batch=BATCH, epochs=2, steps=STEPS, local_crops=2,
        local_size=local_size, momentum=MOMENTUM, temperature=0.07, temperature_start=0.04,
        temperature_epochs=1, frozen_epochs=1,
    )  # fmt: skip


def sscd_of(setting: Setting) -> PreparedStage:
    return sscd(setting, global_batch=BATCH, **SSCD)


@functools.cache
def start_params() -> dict:
    return clip.initial_params(MODEL, 0)


def params_of(name: str) -> dict:
    if name == "sscd":
        return {"clip": start_params()}
    params = jax.device_get(dino_params(start_params(), HEAD, 0))
    rng = np.random.default_rng(0)
    # A teacher unlike its student, and a centre, as after some updates.
    params["teacher"]["centre"] = rng.normal(size=HEAD.prototypes).astype(np.float32) * 0.1
    params["student"] = jax.tree.map(
        lambda x: x + 0.05 * rng.normal(size=x.shape).astype(np.float32), params["student"]
    )
    return params


STAGES = {"dino": (dino_of, dino_stage.FROZEN), "sscd": (sscd_of, SSCD_FROZEN)}


def trained(name, shards, folder, *stops, devices=8, parts=1) -> tuple[dict, dict]:
    """Parameters and meta after a run to each of `stops` in turn, each from the last's end."""
    make, frozen = STAGES[name]
    for stop in stops:
        stage = make(setting_of(shards))
        if parts > 1:
            stage.combine = functools.partial(in_parts, parts=parts)
        train(
            stage,
            params_of(name),
            make_optimizer(Schedule(STEPS, 1, 1e-2), 0.1, frozen),
            Plan(stop, 1, STEPS, STEPS, checkpoints.Best("step", larger=True)),
            mesh=data_mesh(jax.devices()[:devices]),
            folder=folder,
            meta={},
            after_update=stage.after_update,
            say=lambda _: None,
        )
    return checkpoints.load_params(folder, stops[-1])


@pytest.fixture(scope="module", params=list(STAGES))
def whole(request, tiny_shards, tmp_path_factory):
    """Four updates without a break, over eight devices that 18 rows do not divide."""
    folder = tmp_path_factory.mktemp("whole") / request.param
    return request.param, *trained(request.param, tiny_shards, folder, STEPS)


def test_resumes_to_the_bit_and_alike_on_one_device_in_parts(whole, tiny_shards, tmp_path):
    name, params, meta = whole
    _, resumed = trained(name, tiny_shards, tmp_path / "resumed", 2, STEPS)
    assert resumed["checksums"] == meta["checksums"] and resumed["samples"] == meta["samples"]
    alone, _ = trained(name, tiny_shards, tmp_path / "alone", STEPS, devices=1, parts=2)
    for path, value in jax.tree_util.tree_leaves_with_path(alone):
        wanted = functools.reduce(lambda tree, key: tree[key.key], path, params)
        if path[-2:] == KEY_BIAS:  # no loss depends on the keys' bias: what moves it is rounding
            value, wanted = (np.delete(x, np.s_[8:16]) for x in (value, wanted))
        np.testing.assert_allclose(value, wanted, rtol=2e-3, atol=2e-5, err_msg=str(path))


def test_the_text_tower_stays_and_the_image_tower_learns(whole):
    _, params, meta = whole
    start = start_params()
    jax.tree.map(np.testing.assert_array_equal, params["clip"]["text"], dict(start["text"]))
    assert params["clip"]["logit_scale"] == start["logit_scale"]
    moved = jax.tree.map(
        lambda now, then: np.abs(now - then).max() > 1e-4, params["clip"]["vision"], start["vision"]
    )
    assert all(jax.tree.leaves(moved))
    assert all(np.isfinite(value) for value in meta["validation"].values())


def test_one_dino_update_is_the_oracle_s(tiny_shards, tmp_path):
    """Loss and centre from the towers' own outputs; teacher after student; prototypes that wait."""
    stage, before = dino_of(setting_of(tiny_shards)), params_of("dino")
    batch = jax.tree.map(jnp.asarray, stage.complete(stage.batches.at(0)))
    loss, _ = jax.jit(stage.loss)(before, batch)
    features = jax.jit(stage.embed)(before, batch)
    given = {name: np.asarray(value, np.float64) for name, value in features.items()}
    assert given["student"].shape == (BATCH, 4, 12) and given["teacher"].shape == (BATCH, 2, 12)
    assert np.abs(given["student"]).max() <= 1 + 1e-5
    wanted = dino_oracle.distillation(
        given["student"], given["teacher"], before["teacher"]["centre"], 0.1, 0.04
    )
    np.testing.assert_allclose(loss, wanted["loss"], rtol=1e-4)

    after, _ = trained("dino", tiny_shards, tmp_path, 1)
    centre = 0.9 * before["teacher"]["centre"] + 0.1 * wanted["teacher_mean"]
    np.testing.assert_allclose(after["teacher"]["centre"], centre, rtol=1e-4, atol=1e-6)
    assert after["teacher"]["updates"] == 1
    slow = {"vision": before["clip"]["vision"], "head": before["teacher"]["head"]}
    kept = {"vision": after["clip"]["vision"], "head": after["teacher"]["head"]}
    kept_share = dino_oracle.teacher_momentum(0, STEPS, MOMENTUM)
    jax.tree.map(
        lambda old, new, fast: np.testing.assert_allclose(
            new, kept_share * np.asarray(old, np.float64) + (1 - kept_share) * fast, atol=1e-6
        ),
        slow,
        kept,
        after["student"],
    )
    gradient = jax.jit(jax.grad(lambda p: stage.loss(p, batch)[0]))
    waiting = gradient(before)
    assert not np.any(waiting["student"]["head"]["prototypes"]["kernel"])
    assert not any(np.any(x) for x in jax.tree.leaves((waiting["clip"], waiting["teacher"])))
    assert all(np.any(x) for x in jax.tree.leaves(waiting["student"]["vision"]))
    before["teacher"]["updates"] = np.float32(2)  # an epoch later
    assert np.any(gradient(before)["student"]["head"]["prototypes"]["kernel"])


def test_sscd_mixes_the_next_patients_frame_and_counts_it_as_a_match(tiny_shards):
    stage, params = sscd_of(setting_of(tiny_shards)), params_of("sscd")
    batch = stage.complete(stage.batches.at(0))
    chance, lot = batch["chance"][:, :2].astype(np.float64), batch["chance"][:, 2:]
    share = np.where(chance < 0.5, 0.5 - np.sin(np.arcsin(1 - 2.0 * lot) / 3), 1.0)
    assert 0 < (share < 1).mean() < 1
    image = batch["image"].astype(np.float64)
    weight = share[..., None, None, None]
    mixed = weight * image + (1 - weight) * np.roll(image, -1, axis=0)
    padded = shard_batch(batch, data_mesh())  # six rows more
    found = np.asarray(jax.jit(stage.together)(padded)["image"])[:BATCH]
    assert np.abs(found - mixed).max() <= 0.51

    z = np.asarray(jax.jit(stage.embed)(params, {**batch, "image": found}), np.float64)
    contents = np.zeros((BATCH, 2, BATCH))
    for row in range(BATCH):
        contents[row, :, row] += share[row]
        contents[row, :, (row + 1) % BATCH] += 1 - share[row]
    wanted = sscd_oracle.copy_detection(
        z.reshape(2 * BATCH, -1), contents.reshape(2 * BATCH, BATCH), 0.2, 2.0
    )
    loss, terms = jax.jit(stage.loss)(params, padded)
    np.testing.assert_allclose(loss, wanted["loss"], rtol=1e-4)
    np.testing.assert_allclose(terms["info_nce"], wanted["info_nce"], rtol=1e-4)


def test_two_processes_draw_what_one_does(tiny_shards):
    one = dino_of(setting_of(tiny_shards)).batches.at(3)
    two = [dino_of(setting_of(tiny_shards, p, 2)).batches.at(3) for p in (0, 1)]
    for name, value in one.items():
        np.testing.assert_array_equal(np.concatenate([half[name] for half in two]), value)
    assert one["image"].shape == (BATCH, 2, 16, 16, 3)
    assert one["local"].shape == (BATCH, 2, 8, 8, 3)
    assert one["valid"].all() and len(np.unique(one["record"])) == BATCH


def test_a_local_size_without_whole_patches_is_refused(tiny_shards):
    with pytest.raises(UserError, match=r"local_size=12 .* patches of 8"):
        dino_of(setting_of(tiny_shards), local_size=12)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(8, 600), st.integers(8, 600), st.integers(0, 99))
def test_crops_lie_in_the_frame_and_have_the_area_drawn(width, height, seed):
    left, top, right, bottom = crop_box(width, height, (0.3, 0.5), np.random.default_rng(seed))
    assert 0 <= left < right <= width and 0 <= top < bottom <= height
    area = (right - left) * (bottom - top) / (width * height)
    cut = right - left == width or bottom - top == height
    assert area <= 0.5 + 1e-9 and (cut or area >= 0.3 - 1e-9)


def test_a_recipe_without_strength_only_crops_and_mirrors():
    pixels = np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8)
    plain = Recipe((1.0, 1.0), (0.0, 0.0, 0.0, 0.0), 0.0, (0.0, 0.0), grey=0.0)
    found = [augmented(pixels, 20, plain, np.random.default_rng(seed)) for seed in range(40)]
    assert len({image.tobytes() for image in found}) > 20
    for image in found:  # an aspect that does not fit cuts the sides: colours stay
        assert abs(image.mean() - pixels.mean()) < 25
    changed = augmented(pixels, 20, STRONG_BLUR, np.random.default_rng(1))
    assert changed.shape == pixels.shape and changed.dtype == np.uint8


def test_positions_of_another_size_are_the_converters_and_have_gradients():
    from endoclip_jax.convert.positions import interpolate_positions

    grid = np.random.default_rng(0).normal(size=(17, 3)).astype(np.float32)
    for side in (2, 3, 7):
        np.testing.assert_allclose(
            resized_positions(jnp.asarray(grid), side), interpolate_positions(grid, side), atol=1e-5
        )

    def total(params):
        return jnp.sum(image_features(MODEL, params, jnp.ones((1, 8, 8, 3))) ** 2)

    slope = jax.grad(total)(start_params())["vision"]["position_embedding"]
    assert np.all(np.abs(slope).max(axis=1) > 0)
