"""Meshes: the same numbers on each, parameters where the rules put them, clear refusals."""

import jax
import numpy as np
import pytest
from tiny_model import micro

from endoclip_jax.benchmarks.cases import Case
from endoclip_jax.benchmarks.material import Material
from endoclip_jax.errors import UserError
from endoclip_jax.objectives.streaming import streaming_loss
from endoclip_jax.shards.index import Index
from endoclip_jax.stages.attunement import attunement
from endoclip_jax.stages.unification import unification
from endoclip_jax.training import checkpoints
from endoclip_jax.training.metrics import StepMetrics
from endoclip_jax.training.optimizer import Schedule, make_optimizer
from endoclip_jax.training.sharding import (
    BATCH_AXES,
    distribute,
    make_mesh,
    replicate,
    replicated,
    row_by_row,
    shard_batch,
    shardings,
)
from endoclip_jax.training.state import TrainState, make_update

STEPS = 3
SIZE = micro(batches=(16, 6, 4), max_images=2)  # six and four do not divide eight: padded
MESHES = {"fsdp": {"fsdp": 8}, "all": {"data": 2, "fsdp": 2, "model": 2}}


@pytest.fixture(scope="module")
def material(tiny_shards):
    return Material.of(Index.open(tiny_shards), SIZE, seed=0)


@pytest.fixture(scope="module")
def alone(material):
    """Losses and first gradient of each stage on one device, with the dense loss."""
    mesh = make_mesh(devices=jax.devices()[:1])
    made = {}

    def of(case):
        if case not in made:
            made[case] = trained(material, material.stage(case), case, mesh)[:2]
        return made[case]

    return of


def trained(material, stage, case, mesh):
    """A few steps as the loop makes them: losses, gradient of the first, last state."""
    optimizer = make_optimizer(Schedule(10, 0, SIZE.learning_rate), 0.2)
    state = distribute(TrainState.create(material.parameters(case), optimizer), mesh)
    layout = shardings(state, mesh), replicated(mesh), replicated(mesh)
    update = make_update(stage.loss, optimizer, layout)
    running = replicate(StepMetrics.empty(), mesh)
    on_device = row_by_row(stage.on_device, mesh)
    losses = []
    for step in range(STEPS):
        batch = on_device(shard_batch(stage.complete(stage.batches.at(step)), mesh))
        state, running, loss = update(state, running, batch)
        losses.append(float(loss))
        if step == 0:
            (moments,) = [
                part.mu for part in jax.tree.leaves(state.opt_state, is_leaf=is_adam)
                if is_adam(part)
            ]  # fmt: skip
            gradient = jax.device_get(moments)  # a tenth of the clipped gradient
    assert update._cache_size() == 1  # one compilation serves every step
    return losses, gradient, state


def is_adam(node):
    return hasattr(node, "mu")


@pytest.mark.parametrize(
    "case, sizes, streaming",
    [
        (Case("stage1", "onehot"), "all", False),
        (Case("stage2", "power(4)"), "fsdp", True),
        (Case("stage3", "l1"), "all", True),
    ],
    ids=lambda value: value.label if isinstance(value, Case) else str(value),
)
def test_every_stage_has_the_same_numbers_on_every_mesh(material, alone, case, sizes, streaming):
    mesh = make_mesh(MESHES[sizes])
    stage = with_streaming(material, case, mesh) if streaming else material.stage(case)
    losses, gradient, state = trained(material, stage, case, mesh)
    expected, expected_gradient = alone(case)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    norm = float(np.sqrt(sum(np.sum(x**2) for x in jax.tree.leaves(expected_gradient))))
    for got, wanted in zip(
        jax.tree.leaves(gradient), jax.tree.leaves(expected_gradient), strict=True
    ):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-6 * norm)
    kernel = state.params["clip"]["vision"]["block_0"]["up"]["kernel"]
    (adam,) = [x for x in jax.tree.leaves(state.opt_state, is_leaf=is_adam) if is_adam(x)]
    for array in (kernel, adam.nu["clip"]["vision"]["block_0"]["up"]["kernel"]):
        share = array.addressable_shards[0].data.size
        assert share * mesh.shape["fsdp"] * mesh.shape["model"] == array.size


def with_streaming(material, case, mesh):
    shared = {
        "selection": material.selection, "target": "morphology", "target_norm": case.target_norm,
        "temperature": "learned", "contrastive": streaming_loss(mesh, BATCH_AXES, tile=2),
    }  # fmt: skip
    if case.stage == "stage2":
        return attunement(material.setting, global_batch=SIZE.batches[1], **shared)
    from endoclip_jax.models.cross_attention import CrossAttention

    return unification(
        material.setting, CrossAttention(SIZE.model.embed_dim), global_batch=SIZE.batches[2],
        max_images=SIZE.max_images, max_texts=SIZE.max_texts, include_single=False, **shared,
    )  # fmt: skip


def test_a_checkpoint_moves_between_meshes(tmp_path):
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(16, 64)).astype(np.float32)
    tree = {"params": {"block_0": {"up": {"kernel": kernel}}, "logit_scale": np.float32(2)}}
    best = checkpoints.Best("step", larger=True)
    meta = {"best": {"metric": "step", "larger": True}}
    shapes = [{"fsdp": 8}, {"data": 2, "fsdp": 2, "model": 2}, {"data": 8}, {"model": 4, "data": 2}]
    placed = distribute(tree, make_mesh(shapes[0]))
    for step, sizes in enumerate([*shapes[1:], shapes[0]], start=1):
        saved = checkpoints.Checkpoints(tmp_path, best)
        saved.save(step, placed, meta)
        saved.wait()
        like = distribute(jax.tree.map(np.zeros_like, tree), make_mesh(sizes))
        placed, _ = saved.restore(like)
        saved.close()
        for got, wanted, target in zip(*map(jax.tree.leaves, (placed, tree, like)), strict=True):
            np.testing.assert_array_equal(got, wanted)
            assert got.sharding == target.sharding


@pytest.mark.parametrize(
    "sizes, shape",
    [
        ({"data": -1, "fsdp": 1, "model": 1}, (8, 1, 1)),
        ({"data": -1, "fsdp": 2, "model": 2}, (2, 2, 2)),
        ({"data": 1, "fsdp": -1, "model": 4}, (1, 2, 4)),
        ({"data": 8, "fsdp": 1, "model": 1}, (8, 1, 1)),
    ],
)
def test_one_axis_takes_the_devices_that_are_left(sizes, shape):
    assert tuple(make_mesh(sizes).shape.values()) == shape


@pytest.mark.parametrize(
    "sizes, named",
    [
        ({"data": 3, "fsdp": 1, "model": 1}, "data=3 x fsdp=1 x model=1.*8 devices"),
        ({"data": -1, "fsdp": 3, "model": 1}, "8 devices"),
        ({"data": 2, "fsdp": 2, "model": 1}, "8 devices"),
        ({"data": -1, "fsdp": -1, "model": 1}, "one of them may be -1"),
        ({"data": -1, "fsdp": 0, "model": 1}, "1 or more"),
        ({"data": -1, "fsdp": -2, "model": 1}, "1 or more"),
    ],
)
def test_a_mesh_that_cannot_be_is_one_sentence(sizes, named):
    with pytest.raises(UserError, match=named) as error:
        make_mesh(sizes)
    assert "\n" not in str(error.value)


def test_a_width_that_an_axis_does_not_divide_is_named():
    tree = {"vision": {"block_0": {"up": {"kernel": np.zeros((12, 48))}}}}
    with pytest.raises(UserError, match=r"fsdp=8 does not divide the 12 of vision/block_0/up/kern"):
        shardings(tree, make_mesh({"fsdp": 8}))


def test_rows_of_a_batch_are_whole_on_each_group_along_model():
    mesh = make_mesh({"data": 2, "fsdp": 2, "model": 2})
    batch = {"x": np.arange(6.0), "valid": np.ones(6, bool)}
    placed = shard_batch(batch, mesh)
    assert placed["x"].shape == (8,) and int(placed["valid"].sum()) == 6
    assert {shard.data.shape for shard in placed["x"].addressable_shards} == {(2,)}
