"""ResNet against transformers' on random weights, from both forms of file; what is refused."""

from __future__ import annotations

import json

import flax.traverse_util
import jax
import numpy as np
import pytest
import safetensors.numpy
import torch
from transformers import ResNetConfig, ResNetModel

from endoclip_jax.convert.resnet import (
    CAFFE_SCALE,
    IMAGENET_SCALE,
    random_resnet,
    read_resnet,
    units,
)
from endoclip_jax.errors import UserError
from endoclip_jax.models.resnet import ResNetConfig as OurConfig
from endoclip_jax.models.resnet import initial_variables

SIZES = {"embedding_size": 8, "hidden_sizes": [16, 32], "depths": [2, 1]}


def theirs(stride_in_first: bool) -> ResNetModel:
    """A small network whose stored means and variances are those of none other."""
    torch.manual_seed(0)
    model = ResNetModel(ResNetConfig(**SIZES, downsample_in_bottleneck=stride_in_first)).eval()
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            torch.nn.init.normal_(buffer, std=0.2)
        elif name.endswith("running_var"):
            torch.nn.init.uniform_(buffer, 0.5, 2)
    for name, parameter in model.named_parameters():
        if "normalization" in name:
            torch.nn.init.normal_(parameter, mean=0.8, std=0.3)
    return model


def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 40, 40, 3), np.uint8)


def expected(model: ResNetModel, scaled: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        given = torch.from_numpy(np.ascontiguousarray(scaled.transpose(0, 3, 1, 2)))
        return model(given).pooler_output[:, :, 0, 0].numpy()


def ours(loaded) -> np.ndarray:
    embed = jax.jit(lambda variables, x: loaded.model.apply(variables, loaded.normalise(x)))
    return np.asarray(embed(loaded.variables, pixels()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resnet")
    theirs(False).save_pretrained(folder)
    return folder


def test_features_are_those_of_transformers(folder):
    loaded = read_resnet(folder)
    assert loaded.normalise == IMAGENET_SCALE and not loaded.notes
    scaled = (pixels() / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    wanted = expected(theirs(False), scaled.astype(np.float32))
    np.testing.assert_allclose(ours(loaded), wanted, rtol=1e-5, atol=1e-5)


def keras_files(model: ResNetModel, folder, epsilon: float, version: int) -> None:
    """The same network as Keras keeps it: biases before the normalisation, weights in two files."""
    rng, state = np.random.default_rng(1), model.state_dict()
    weights, layers = {}, []
    for unit in units(tuple(SIZES["depths"])):
        convolution, norm = unit.keras if version == 1 else unit.keras_2
        kernel = state[f"{unit.huggingface}.convolution.weight"].numpy().transpose(2, 3, 1, 0)
        bias = rng.normal(size=kernel.shape[-1]).astype(np.float32)
        names = ("weight", "bias", "running_mean", "running_var")
        values = [state[f"{unit.huggingface}.normalization.{name}"].numpy() for name in names]
        values[2] = values[2] + bias
        weights |= {f"{convolution}/kernel": kernel, f"{convolution}/bias": bias}
        keras_names = ("gamma", "beta", "moving_mean", "moving_variance")
        weights |= {f"{norm}/{name}": v for name, v in zip(keras_names, values, strict=True)}
        stride = 2 if convolution in ("conv1", "res3a_branch2a", "res3a_branch1") else 1
        stride = 2 if convolution in ("conv1_conv", "conv3_block1_1_conv") else stride
        layers += [
            {"class_name": "Conv2D", "config": {"name": convolution, "strides": [stride, stride]}},
            {"class_name": "BatchNormalization", "config": {"name": norm, "epsilon": epsilon}},
        ]
    dense = {"predictions/kernel": np.ones((32, 3), np.float32), "predictions/bias": np.ones(3)}
    weights |= {name: value.astype(np.float32) for name, value in dense.items()}
    layers.append({"class_name": "Dense", "config": {"name": "predictions"}})
    data = b"".join(np.ascontiguousarray(value).tobytes() for value in weights.values())
    (folder / "shard1.bin").write_bytes(data[:1001])
    (folder / "shard2.bin").write_bytes(data[1001:])
    listed = [
        {"name": name, "shape": list(value.shape), "dtype": "float32"}
        for name, value in weights.items()
    ]
    described = {
        "modelTopology": {"model_config": {"class_name": "Model", "config": {"layers": layers}}},
        "weightsManifest": [{"paths": ["shard1.bin", "shard2.bin"], "weights": listed}],
    }
    (folder / "model.json").write_text(json.dumps(described))


@pytest.mark.parametrize("version", [1, 2])
def test_a_keras_model_gives_the_same_features(tmp_path, version):
    """Stride in the first convolution, epsilon 1e-3, biases, blue first."""
    model = theirs(True)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eps = 1e-3
    keras_files(model, tmp_path, 1e-3, version)
    loaded = read_resnet(tmp_path)
    assert loaded.normalise == CAFFE_SCALE and loaded.model.config.epsilon == 1e-3
    assert loaded.model.config.stride_in_first and "predictions/kernel" in loaded.notes[0]
    scaled = pixels()[..., ::-1].astype(np.float32) - np.float32([103.939, 116.779, 123.68])
    wanted = expected(model, scaled)
    np.testing.assert_allclose(ours(loaded), wanted, rtol=1e-5, atol=1e-4)


LAST = "encoder.stages.1.layers.0.layer.2.convolution.weight"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda t: t.pop(LAST), f"no tensor '{LAST}'"),
        (lambda t: t.update(spare=np.ones(2, np.float32)), "no place for, such as 'spare'"),
        (
            lambda t: t.update({LAST: np.ones((32, 9, 1, 1), np.float32)}),
            r"\[1, 1, 9, 32\] for params/stage_1_block_0/conv_2",
        ),
    ],
)
def test_what_does_not_fit_is_refused_by_name(folder, tmp_path, change, named):
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    change(tensors)
    safetensors.numpy.save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    with pytest.raises(UserError, match=named):
        read_resnet(tmp_path)


@pytest.mark.parametrize("key, value", [("layer_type", "basic"), ("model_type", "regnet")])
def test_another_network_is_refused(folder, tmp_path, key, value):
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, key: value}))
    with pytest.raises(UserError, match=f"{key}='{value}'"):
        read_resnet(tmp_path)


def test_damaged_keras_weights_are_refused(tmp_path):
    keras_files(theirs(True), tmp_path, 1e-3, 1)
    part = tmp_path / "shard2.bin"
    part.write_bytes(part.read_bytes()[:-4])
    with pytest.raises(UserError, match="end inside 'predictions/bias'"):
        read_resnet(tmp_path)
    with pytest.raises(UserError, match=r"model\.json first"):
        read_resnet(part)
    with pytest.raises(UserError, match="is no ResNet"):
        read_resnet(tmp_path / "nowhere")


def test_random_resnet_50_is_pytorchs_in_size_and_spread():
    flat = flax.traverse_util.flatten_dict(random_resnet(0).variables["params"], sep="/")
    assert sum(leaf.size for leaf in flat.values()) == 23_508_032  # without the classifier
    kernel = flat["stage_3_block_0/conv_1/convolution/kernel"]
    np.testing.assert_allclose(kernel.std(), (2 / (9 * 512)) ** 0.5, rtol=1e-2)


def test_a_seed_gives_its_own_random_weights():
    config = OurConfig(stem=8, widths=(16,), depths=(1,))
    one, again, other = (initial_variables(config, seed) for seed in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, one, again)
    stems = [tree["params"]["stem"]["convolution"]["kernel"] for tree in (one, other)]
    assert not np.array_equal(*stems)
