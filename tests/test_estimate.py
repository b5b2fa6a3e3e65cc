"""What is said of disk and memory before a run, against real checkpoints and a small disk."""

import shutil
from types import SimpleNamespace

import jax
import pytest

from configs import base
from endoclip_jax.configuration import resolve
from endoclip_jax.errors import UserError
from endoclip_jax.models import clip
from endoclip_jax.models.clip import CLIP, CLIPConfig
from endoclip_jax.pipeline.estimate import KEPT, check_room, state_bytes
from endoclip_jax.training.optimizer import Schedule, make_optimizer
from endoclip_jax.training.sharding import data_mesh, distribute, make_mesh
from endoclip_jax.training.state import TrainState


@pytest.fixture
def small():
    config = base.get_config()
    config.demo.model.vision.update(width=32, layers=1, heads=1, patch_size=16)
    config.demo.model.text.update(width=16, layers=1, heads=1)
    config = resolve(config, set())
    return config, CLIP(CLIPConfig.from_dict(config.model.to_dict()))


def checkpoint_bytes(small, stage):
    return state_bytes(*small, stage, data_mesh())[1]


@pytest.mark.parametrize("fsdp", [1, 4])
def test_bytes_are_those_of_a_real_state(small, fsdp):
    params = {"clip": clip.initial_params(small[1], 0)}
    state = TrainState.create(params, make_optimizer(Schedule(2, 1, 1e-3), 0.2))
    mesh = make_mesh({"data": -1, "fsdp": fsdp})
    placed = jax.tree.leaves(distribute(state, mesh))
    share, whole = state_bytes(*small, "stage2", mesh)
    assert whole == sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    assert share == sum(leaf.addressable_shards[0].data.nbytes for leaf in placed)
    assert share == whole if fsdp == 1 else share < whole / 2


def test_frozen_towers_have_no_moments_and_cross_attention_comes_on_top(small):
    one, two, three = (checkpoint_bytes(small, f"stage{number}") for number in (1, 2, 3))
    assert one < two < three


def test_a_disk_too_small_is_refused(small, monkeypatch, tmp_path):
    needed = KEPT * (2 * checkpoint_bytes(small, "stage1") + checkpoint_bytes(small, "stage2"))

    def free(number):
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=number))

    free(needed)
    assert f"free in {tmp_path}" in check_room(*small, tmp_path, ["stage1", "stage2"])
    free(needed - 1)
    with pytest.raises(UserError, match="make room") as error:
        check_room(*small, tmp_path, ["stage1", "stage2"])
    assert "\n" not in str(error.value)


def test_what_lies_there_already_is_not_counted_again(small, tmp_path):
    folder = tmp_path / "stage2" / "checkpoints" / "5"
    for name in ("state", "meta"):
        (folder / name).mkdir(parents=True)
    (folder / "state" / "data").write_bytes(bytes(KEPT * checkpoint_bytes(small, "stage2")))
    assert "up to 0 B of" in check_room(*small, tmp_path, ["stage2"])
