"""Checkpoints that were damaged, and a disk that is full: real files, real limits."""

import json
import resource
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from small_stage import final, run

from configs import base
from endoclip_jax.data.tokenizer import load_tokenizer
from endoclip_jax.errors import UserError
from endoclip_jax.models.clip import CLIP, VIT_B32
from endoclip_jax.pipeline.run import Run, best_step, params_of
from endoclip_jax.shards.index import Index
from endoclip_jax.stages.stage import Setting
from endoclip_jax.training import checkpoints
from endoclip_jax.training.integrity import checksums, difference, host_checksums
from endoclip_jax.training.sharding import data_mesh
from endoclip_jax.training.stopping import StopRequest

WIDTH = 512  # so that arrays lie in files of their own


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Ten steps with checkpoints at five and ten."""
    folder = tmp_path_factory.mktemp("trained")
    run(folder, width=WIDTH)
    return folder


def test_a_finished_stage_that_is_damaged_names_the_remedy(trained, tiny_shards, tmp_path):
    folder = tmp_path / "stage2"
    shutil.copytree(trained, folder)
    (tmp_path / "away").mkdir()
    setting = Setting(Index.open(tiny_shards), CLIP(VIT_B32), load_tokenizer(), seed=0)
    own = Run(base.get_config(), tmp_path, setting, stop=StopRequest())
    step = best_step(own, "stage2")
    for path in data_files(folder, step):
        truncate(path)
    with pytest.raises(UserError, match=r"is damaged .*: move .* away and run the same") as error:
        params_of(own, "stage2")
    assert str(folder / "checkpoints" / str(step)) in str(error.value)
    shutil.move(folder / "checkpoints" / str(step), tmp_path / "away")
    assert params_of(own, "stage2")["clip"]["kernel"].shape == (6, WIDTH)


def data_files(folder, step):
    """The files of the state that hold arrays, largest first."""
    files = (folder / "checkpoints" / str(step) / "state").rglob("d/*")
    return sorted(files, key=lambda path: -path.stat().st_size)


def flip(path, where=0.6):
    content = bytearray(path.read_bytes())
    content[int(len(content) * where)] ^= 0x10
    path.write_bytes(bytes(content))


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGES = {
    "flipped byte in the arrays": lambda step: flip(arrays(step)),
    "arrays cut short": lambda step: truncate(arrays(step)),
    "arrays gone": lambda step: arrays(step).unlink(),
    "index cut short": lambda step: truncate(step / "state" / "manifest.ocdbt"),
    "flipped byte in the index": lambda step: flip(step / "state" / "manifest.ocdbt"),
    "tree cut short": lambda step: truncate(step / "state" / "_METADATA"),
    "descriptions cut short": lambda step: truncate(step / "state/array_metadatas/process_0"),
    "meta cut short": lambda step: truncate(step / "meta" / "metadata"),
    "another number in meta": lambda step: replace(step / "meta" / "metadata", b'"step":', b"9"),
    "ranking cut short": lambda step: truncate(step / "metrics" / "metrics"),
}


def arrays(step):
    return data_files(step.parent.parent, step.name)[0]


def replace(path, key, digit):
    content = path.read_bytes()
    at = content.index(key) + len(key)
    while not chr(content[at]).isdigit():
        at += 1
    path.write_bytes(content[:at] + digit + content[at + 1 :])


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(trained, tmp_path, kind):
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    DAMAGES[kind](folder / "checkpoints" / "10")
    said = []
    outcome, stage = run(folder, width=WIDTH, say=said.append)
    assert outcome.finished and len(stage.batches.seen) >= 5
    assert "step 10" in said[0] and "damaged (" in said[0] and "step 5 is next" in said[0]
    assert said[1] == "regression: resumes at step 5 of 10"
    assert (folder / "damaged" / "10").is_dir()
    (left, left_meta), (right, right_meta) = final(trained), final(folder)
    np.testing.assert_array_equal(left, right)
    assert left_meta["checksums"] == right_meta["checksums"]


def test_when_all_are_damaged_training_begins_anew_and_says_so(trained, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    for step in (5, 10):
        flip(data_files(folder, step)[0])
    said = []
    run(folder, width=WIDTH, say=said.append)
    assert "step 10" in said[0] and "step 5" in said[1] and "no older one" in said[1]
    np.testing.assert_array_equal(final(trained)[0], final(folder)[0])


def test_parameters_of_a_damaged_checkpoint_are_never_handed_on(trained, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    kernel, found = final(trained)[0], set()
    for path in data_files(folder, 10):  # which array a byte belongs to is the database's affair
        for where in np.linspace(0.02, 0.98, 25):
            flip(path, where)
            try:
                np.testing.assert_array_equal(final(folder)[0], kernel)
            except checkpoints.Damaged as damage:
                found.add(str(damage))
            flip(path, where)
    assert any("params/clip/kernel" in message for message in found)
    flip(folder / "checkpoints" / "10" / "meta" / "metadata")
    with pytest.raises(checkpoints.Damaged, match="meta"):
        final(folder)
    assert checkpoints.best_step(folder) == 5
    assert checkpoints.newest_meta(folder)["step"] == 5


def test_meta_holds_what_a_resume_needs(trained):
    meta = checkpoints.read_meta(trained, 10)
    assert {"step", "steps", "seconds", "samples", "best", "validation", "stage"} <= meta.keys()
    names = set(meta["checksums"])
    assert {"step", "params/clip/kernel", "params/clip/logit_scale"} <= names
    assert any("mu/clip/kernel" in name for name in names)  # the optimizer
    assert any(name.startswith("running/") for name in names)  # metrics since the last line
    json.dumps(meta)


def test_a_disk_that_fills_up_is_an_error_and_leaves_the_earlier_checkpoint(tmp_path):
    run(tmp_path, steps=5, width=64)
    before = final(tmp_path, 5)[0]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))  # no file beyond 4 KiB
    try:
        with pytest.raises(UserError, match=r"could not be written.*steps: 5.*make room") as error:
            run(tmp_path, width=64)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "File too large" in str(error.value) and "\n" not in str(error.value)
    assert checkpoints.saved_steps(tmp_path) == [5]
    np.testing.assert_array_equal(final(tmp_path, 5)[0], before)
    outcome, _ = run(tmp_path, width=64)
    assert outcome.finished


@pytest.mark.parametrize("dtype", [np.float32, np.int32, jnp.bfloat16, np.uint8, bool])
def test_checksums_are_alike_on_host_and_any_devices(dtype):
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(16, 24)) * 50).astype(dtype)
    mesh = data_mesh()
    whole = host_checksums({"x": x})
    assert checksums({"x": x}) == whole
    for spec in (PartitionSpec("data"), PartitionSpec(None, "data"), PartitionSpec()):
        assert checksums({"x": jax.device_put(x, NamedSharding(mesh, spec))}) == whole
    assert host_checksums({"x": np.asarray(x[3, 5])}) == checksums({"x": x[3, 5]})


def test_every_flipped_bit_and_every_exchange_is_seen():
    x = np.random.default_rng(1).normal(size=40).astype(np.float32)
    recorded = host_checksums({"x": x})
    assert difference(host_checksums({"x": x.copy()}), recorded) is None
    for element in range(40):
        for bit in range(32):
            bits = x.copy().view(np.uint32)
            bits[element] ^= np.uint32(1 << bit)
            other = host_checksums({"x": bits.view(np.float32)})
            assert difference(other, recorded) == "the bytes of x are not those that were written"
    exchanged = x.copy()
    exchanged[[2, 7]] = exchanged[[7, 2]]
    negated = x.copy()
    negated[:2] *= -1  # two sign bits: a plain sum modulo 2**32 would not see it
    for other in (exchanged, negated, np.append(x, np.float32(0)), np.zeros_like(x)):
        assert difference(host_checksums({"x": other}), recorded) is not None
    assert difference({}, recorded) == "it lacks x"
    assert "y, which was not" in difference({**recorded, "y": 1}, recorded)
