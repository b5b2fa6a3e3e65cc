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
from endoclip_jax.training.state import TrainState


@pytest.fixture
def small():
    config = base.get_config()
    config.demo.model.vision.update(width=32, layers=1, heads=1, patch_size=16)
    config.demo.model.text.update(width=16, layers=1, heads=1)
    config = resolve(config, set())
    return config, CLIP(CLIPConfig.from_dict(config.model.to_dict()))


def test_bytes_are_those_of_a_real_state(small):
    params = {"clip": clip.initial_params(small[1], 0)}
    state = TrainState.create(params, make_optimizer(Schedule(2, 1, 1e-3), 0.2))
    assert state_bytes(*small, "stage2") == sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    # frozen towers have no moments, cross-attention comes on top
    assert (
        state_bytes(*small, "stage1")
        < state_bytes(*small, "stage2")
        < state_bytes(*small, "stage3")
    )


def test_a_disk_too_small_is_refused(small, monkeypatch, tmp_path):
    needed = KEPT * (2 * state_bytes(*small, "stage1") + state_bytes(*small, "stage2"))

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
    (folder / "state" / "data").write_bytes(bytes(KEPT * state_bytes(*small, "stage2")))
    assert "up to 0 B of" in check_room(*small, tmp_path, ["stage2"])
