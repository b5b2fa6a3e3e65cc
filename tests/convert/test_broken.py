"""What is broken, foreign or hostile is refused in one clear sentence that names file and key."""

from __future__ import annotations

import json
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch

from endoclip_jax.convert.companions import check_preprocessor, check_tokenizer
from endoclip_jax.convert.configurations import from_huggingface, from_open_clip, to_open_clip
from endoclip_jax.convert.source import read_weights
from endoclip_jax.convert.torch_file import read_torch_file
from endoclip_jax.errors import UserError
from endoclip_jax.models.clip import VIT_B32


def refused(source) -> str:
    with pytest.raises(UserError) as error:
        read_weights(source)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("cut", [10, 5000, -7])
def test_truncated_safetensors(hf_folder, tmp_path, cut):
    (tmp_path / "config.json").write_bytes((hf_folder / "config.json").read_bytes())
    whole = (hf_folder / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[:cut])
    assert "model.safetensors" in refused(tmp_path) and "cut short" in refused(tmp_path)


def test_folder_without_weights_and_nowhere(hf_folder, tmp_path):
    (tmp_path / "config.json").write_bytes((hf_folder / "config.json").read_bytes())
    assert "has no weights" in refused(tmp_path)
    assert "is not there" in refused(tmp_path / "none")


def test_hub_name_without_network(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    message = refused("openai/no-such-clip")
    assert "openai/no-such-clip" in message and "network" in message


def test_hub_name_from_the_hubs_cache(hf_folder, tmp_path, monkeypatch):
    repository = tmp_path / "models--someone--clip"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    (repository / "snapshots").mkdir()
    (repository / "snapshots" / ("0" * 40)).symlink_to(hf_folder)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert read_weights("someone/clip").config.vision.width == 24


@pytest.mark.parametrize(
    "changes, named",
    [
        ({"model_type": "siglip"}, "'siglip'"),
        ({"vision_config.hidden_act": "gelu_pytorch_tanh"}, r"vision_config\.hidden_act"),
        ({"text_config.hidden_act": "gelu"}, r"text_config\.hidden_act"),
        ({"text_config.layer_norm_eps": 1e-6}, r"text_config\.layer_norm_eps"),
        ({"vision_config.intermediate_size": 100}, r"vision_config\.intermediate_size"),
        ({"vision_config.num_channels": 4}, r"vision_config\.num_channels"),
        ({"text_config.eos_token_id": 5}, r"text_config\.eos_token_id"),
        ({"vision_config.image_size": [24, 32]}, r"vision_config\.image_size"),
        ({"text_config.vocab_size": 250002, "text_config.eos_token_id": 2}, "another tokenizer"),
        ({"text_config.max_position_embeddings": 248}, "248 tokens"),
    ],
)
def test_configurations_of_another_function(hf_folder, edited, changes, named):
    folder = edited(hf_folder, "config.json", changes)
    with pytest.raises(UserError, match=named):
        read_weights(folder)


def test_early_configurations_say_it_twice(hf_model):
    given = hf_model.config.to_dict()
    given["text_config_dict"] = {"num_hidden_layers": 5, "eos_token_id": 2}
    assert from_huggingface(given, "old").text.layers == 5
    del given["vision_config"]
    with pytest.raises(UserError, match="no vision_config"):
        from_huggingface(given, "old")


@pytest.mark.parametrize(
    "tower, changes, named",
    [
        ("vision_cfg", {"timm_model_name": "vit_base"}, r"vision_cfg\.timm_model_name"),
        ("vision_cfg", {"layers": [3, 4, 6, 3]}, "ResNet"),
        ("vision_cfg", {"mlp_ratio": 3.7}, r"vision_cfg\.mlp_ratio"),
        ("text_cfg", {"hf_model_name": "roberta"}, r"text_cfg\.hf_model_name"),
        ("text_cfg", {"norm_kwargs": {"eps": 1e-6}}, r"norm_kwargs\.eps"),
    ],
)
def test_open_clip_options_that_clip_never_had(tower, changes, named):
    given = to_open_clip(VIT_B32)
    assert from_open_clip(given, "same") == VIT_B32
    given["model_cfg"][tower] |= changes
    with pytest.raises(UserError, match=named):
        from_open_clip(given, "given")


def test_another_normalisation_or_vocabulary_beside_the_weights(tmp_path):
    file = tmp_path / "preprocessor_config.json"
    file.write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.5] * 3}))
    with pytest.raises(UserError, match="image_mean"):
        check_preprocessor(tmp_path)
    file.write_text(json.dumps({"resample": 2}))
    with pytest.raises(UserError, match="resample"):
        check_preprocessor(tmp_path)
    (tmp_path / "vocab.json").write_text(json.dumps({"polyp": 0}))
    with pytest.raises(UserError, match=r"vocab\.json"):
        check_tokenizer(tmp_path, 49408, 77)
    (tmp_path / "vocab.json").unlink()
    (tmp_path / "merges.txt").write_text("#version: 0.2\np o\n")
    with pytest.raises(UserError, match=r"merges\.txt"):
        check_tokenizer(tmp_path, 49408, 77)


class Hostile:
    """A pickle that makes a folder when it is opened."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


def test_pickle_that_wants_to_run_code(hf_folder, tmp_path):
    (tmp_path / "config.json").write_bytes((hf_folder / "config.json").read_bytes())
    trace, file = tmp_path / "trace", tmp_path / "pytorch_model.bin"
    torch.save({"logit_scale": torch.ones(()), "x": Hostile(trace)}, file)
    assert "mkdir" in refused(tmp_path) and not trace.exists()
    file.write_bytes(pickle.dumps(Hostile(trace)))
    assert "any code" in refused(tmp_path) and not trace.exists()


def test_torch_files_that_are_damaged_or_none(tmp_path):
    file = tmp_path / "x.pt"
    torch.save({"a": torch.arange(6.0).reshape(2, 3).T}, file)
    np.testing.assert_array_equal(read_torch_file(file)["a"], np.arange(6.0).reshape(2, 3).T)
    whole = file.read_bytes()
    file.write_bytes(whole[:-100])
    with pytest.raises(UserError, match="cut short"):
        read_torch_file(file)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("readme.txt", "nothing")
    with pytest.raises(UserError, match="not one that PyTorch wrote"):
        read_torch_file(file)
    torch.save([1, 2], file)
    with pytest.raises(UserError, match="no dictionary of tensors"):
        read_torch_file(file)


def test_tensor_reaching_outside_its_storage(tmp_path):
    """A file whose tensor claims more than its storage holds."""
    source, file = tmp_path / "a.pt", tmp_path / "b.pt"
    torch.save({"a": torch.arange(6.0)}, source)
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(file, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, content[:8] if name.endswith("data/0") else content)
    with pytest.raises(UserError, match="outside its storage"):
        read_torch_file(file)
