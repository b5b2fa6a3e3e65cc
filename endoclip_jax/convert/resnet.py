"""ResNet weights from a Hugging Face folder or a Keras model, for the baselines of Table 1.

Two names of the same places stand in one table; a tensor that is missing, that has no place or that
has another shape is refused by name. Keras's convolutions have biases, which the normalisation
behind them takes in exactly: BN(conv + b) is BN(conv) with the mean b less.

A Keras model is read in the form of its own JSON with the weights beside it (`model.json`, "Keras
layers model", as TensorFlow.js keeps it), which needs neither TensorFlow nor HDF5.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import flax.traverse_util
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from endoclip_jax.convert.companions import read_json
from endoclip_jax.convert.foreign import HF_WEIGHTS, read_tensors
from endoclip_jax.errors import UserError
from endoclip_jax.models.resnet import (
    RESNET_50,
    ResNet,
    ResNetConfig,
    initial_variables,
    variable_shapes,
)

Tensors = dict[str, np.ndarray]

_HF_CONFIG, _HF_PREPROCESSOR, KERAS_FILE = "config.json", "preprocessor_config.json", "model.json"
_HF_CLASSIFIER = ("classifier.1.weight", "classifier.1.bias")
_HF_COUNTER = "num_batches_tracked"
_HF_NORM = ("weight", "bias", "running_mean", "running_var")
_KERAS_NORM = ("gamma", "beta", "moving_mean", "moving_variance")
_IMAGE_SIZE = 224


@dataclass(frozen=True)
class PixelScale:
    """What a network was trained to see: `(x - mean) / std` of 0 to 255, red first unless `bgr`."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    bgr: bool = False

    def __call__(self, images: UInt8[Array, "*b s s 3"]) -> Float[Array, "*b s s 3"]:
        scaled = (images.astype(jnp.float32) - jnp.asarray(self.mean)) / jnp.asarray(self.std)
        return scaled[..., ::-1] if self.bgr else scaled


IMAGENET_SCALE = PixelScale((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
CAFFE_SCALE = PixelScale((123.68, 116.779, 103.939), (1.0, 1.0, 1.0), bgr=True)  # Keras's ResNet


@dataclass(frozen=True)
class LoadedResNet:
    """A ResNet ready to embed frames: `model.apply(variables, normalise(uint8 images))`.

    Attributes:
      notes: what was left unread, to be shown.
    """

    model: ResNet
    variables: Mapping[str, Any]
    normalise: PixelScale
    image_size: int = _IMAGE_SIZE
    notes: tuple[str, ...] = ()


def random_resnet(seed: int) -> LoadedResNet:
    """The baseline `Random (ResNet-50)`: untrained weights from a seed."""
    return LoadedResNet(ResNet(RESNET_50), initial_variables(RESNET_50, seed), IMAGENET_SCALE)


def read_resnet(source: str | Path) -> LoadedResNet:
    """The baseline `ImageNet (ResNet-50)`: a Hugging Face folder, or a Keras `model.json`.

    Args:
      source: a folder with `config.json` or `model.json`, or that `model.json` itself.

    Raises:
      UserError: naming file and tensor for anything missing, unknown, damaged or of another shape.
    """
    path = Path(source).expanduser().absolute()
    if path.is_dir() and (path / _HF_CONFIG).is_file():
        return _from_huggingface(path)
    file = path / KERAS_FILE if path.is_dir() else path
    if not file.is_file():
        raise UserError(
            f"{source} is no ResNet: give a Hugging Face folder ({_HF_CONFIG} and {HF_WEIGHTS[0]}) "
            f"or a Keras model as {KERAS_FILE} with its weights beside it"
        )
    if file.suffix != ".json":
        raise UserError(
            f"{file} is not read here: write the Keras model as {KERAS_FILE} first "
            "(tensorflowjs_converter --input_format=keras)"
        )
    return _from_keras(file)


class Unit(NamedTuple):
    """A convolution with its normalisation: our path, and its name elsewhere."""

    path: tuple[str, ...]
    huggingface: str
    keras: tuple[str, str]  # version 1 of Keras's names
    keras_2: tuple[str, str]


def units(depths: tuple[int, ...]) -> list[Unit]:
    """The table for a network of this depth."""
    table = [Unit(("stem",), "embedder.embedder", ("conv1", "bn_conv1"), _keras_2("conv1"))]
    for stage, depth in enumerate(depths):
        for block in range(depth):
            ours = f"stage_{stage}_block_{block}"
            theirs = f"encoder.stages.{stage}.layers.{block}"
            old = f"{stage + 2}{chr(ord('a') + block)}_branch"
            new = f"conv{stage + 2}_block{block + 1}"
            if block == 0:
                table.append(
                    Unit(
                        (ours, "shortcut"),
                        f"{theirs}.shortcut",
                        (f"res{old}1", f"bn{old}1"),
                        _keras_2(f"{new}_0"),
                    )
                )
            for part, letter in enumerate("abc"):
                table.append(
                    Unit(
                        (ours, f"conv_{part}"),
                        f"{theirs}.layer.{part}",
                        (f"res{old}2{letter}", f"bn{old}2{letter}"),
                        _keras_2(f"{new}_{part + 1}"),
                    )
                )
    return table


def _keras_2(name: str) -> tuple[str, str]:
    return f"{name}_conv", f"{name}_bn"


class _Reader:
    """Tensors handed out by name, once each, so that what is left over can be told."""

    def __init__(self, tensors: Mapping[str, np.ndarray], where: str) -> None:
        self._tensors, self._where, self._left = tensors, where, set(tensors)

    def take(self, name: str) -> np.ndarray:
        if name not in self._tensors:
            raise UserError(f"{self._where} has no tensor {name!r}, which the ResNet needs")
        self._left.discard(name)
        return np.asarray(self._tensors[name], np.float32)

    def take_if_there(self, name: str) -> np.ndarray | None:
        return self.take(name) if name in self._tensors else None

    def drop(self, names: list[str]) -> tuple[str, ...]:
        """Leaves out what is known and not needed; a note says so."""
        found = [name for name in names if name in self._left]
        self._left -= set(found)
        return (f"{self._where}: {', '.join(found)} not read: features only",) if found else ()

    def finish(self) -> None:
        if self._left:
            raise UserError(
                f"{self._where} has {len(self._left)} tensor(s) that a ResNet has no place for, "
                f"such as {min(self._left)!r}: it is another model, or another version of it"
            )


def _from_huggingface(folder: Path) -> LoadedResNet:
    given = read_json(folder / _HF_CONFIG)
    config = _huggingface_config(given, str(folder / _HF_CONFIG))
    file = next((folder / name for name in HF_WEIGHTS if (folder / name).is_file()), None)
    if file is None:
        raise UserError(f"{folder} has no weights: expected {' or '.join(HF_WEIGHTS)}")
    tensors = {
        name.removeprefix("resnet."): tensor
        for name, tensor in read_tensors(file).items()
        if not name.endswith(_HF_COUNTER)
    }
    reader = _Reader(tensors, str(file))
    flat: Tensors = {}
    for unit in units(config.depths):
        kernel = reader.take(f"{unit.huggingface}.convolution.weight")
        norm = [reader.take(f"{unit.huggingface}.normalization.{name}") for name in _HF_NORM]
        flat |= _placed(unit, kernel.transpose(2, 3, 1, 0), *norm)
    notes = reader.drop(list(_HF_CLASSIFIER))
    reader.finish()
    return LoadedResNet(
        ResNet(config),
        _checked(flat, config, str(file)),
        _huggingface_scale(folder),
        notes=notes,
    )


def _huggingface_config(given: Mapping[str, Any], where: str) -> ResNetConfig:
    wanted = {
        "model_type": "resnet",
        "layer_type": "bottleneck",
        "hidden_act": "relu",
        "num_channels": 3,
        "downsample_in_first_stage": False,
    }
    for key, value in wanted.items():
        if given.get(key, value) != value:
            raise UserError(f"{where} has {key}={given[key]!r}: only {value!r} is computed here")
    if "model_type" not in given:
        raise UserError(f"{where} names no model_type: it is no ResNet's")
    return ResNetConfig(
        stem=given.get("embedding_size", RESNET_50.stem),
        widths=tuple(given.get("hidden_sizes", RESNET_50.widths)),
        depths=tuple(given.get("depths", RESNET_50.depths)),
        stride_in_first=given.get("downsample_in_bottleneck", False),
    )


def _huggingface_scale(folder: Path) -> PixelScale:
    path = folder / _HF_PREPROCESSOR
    if not path.is_file():
        return IMAGENET_SCALE
    given = read_json(path)
    mean, std = given.get("image_mean"), given.get("image_std")
    if mean is None or std is None or len(mean) != 3 or len(std) != 3:
        raise UserError(f"{path} has no image_mean and image_std of three numbers each")
    factor = 1 / given.get("rescale_factor", 1 / 255)
    return PixelScale(tuple(m * factor for m in mean), tuple(s * factor for s in std))


def _from_keras(file: Path) -> LoadedResNet:
    given = read_json(file)
    tensors = _keras_tensors(given, file)
    second = "conv1_conv/kernel" in tensors
    layers = _keras_layers(given, file)
    config = _keras_config(tensors, layers, second, str(file))
    reader = _Reader(tensors, str(file))
    flat: Tensors = {}
    for unit in units(config.depths):
        convolution, norm = unit.keras_2 if second else unit.keras
        kernel = reader.take(f"{convolution}/kernel")
        bias = reader.take_if_there(f"{convolution}/bias")
        gamma, beta, mean, variance = (reader.take(f"{norm}/{name}") for name in _KERAS_NORM)
        if bias is not None:
            mean = mean - bias
        flat |= _placed(unit, kernel, gamma, beta, mean, variance)
    dense = [name for name in layers if layers[name]["class_name"] == "Dense"]
    notes = reader.drop([f"{name}/{part}" for name in dense for part in ("kernel", "bias")])
    reader.finish()
    return LoadedResNet(ResNet(config), _checked(flat, config, str(file)), CAFFE_SCALE, notes=notes)


def _keras_layers(given: Mapping[str, Any], file: Path) -> dict[str, Mapping[str, Any]]:
    try:
        topology = given["modelTopology"]
        layers = topology.get("model_config", topology)["config"]["layers"]
        return {layer["config"]["name"]: layer for layer in layers}
    except (AttributeError, KeyError, TypeError):
        raise UserError(f"{file} describes no Keras model: expected a layers-model") from None


def _keras_tensors(given: Mapping[str, Any], file: Path) -> Tensors:
    """The weights listed in the manifest, cut from the files beside it."""
    tensors: Tensors = {}
    for group in given.get("weightsManifest", []):
        parts = []
        for name in group["paths"]:
            part = file.parent / name
            if part.parent != file.parent or not part.is_file():
                raise UserError(f"{file} names {name}, which is not beside it")
            parts.append(part.read_bytes())
        data, start = b"".join(parts), 0
        for weight in group["weights"]:
            if weight["dtype"] != "float32" or "quantization" in weight:
                raise UserError(f"{weight['name']!r} of {file} is not plain float32: convert it so")
            size = 4 * math.prod(weight["shape"])
            if start + size > len(data):
                raise UserError(f"the weights beside {file} end inside {weight['name']!r}")
            values = np.frombuffer(data, "<f4", size // 4, start)
            tensors[weight["name"]] = values.reshape(weight["shape"])
            start += size
        if start != len(data):
            raise UserError(f"the weights beside {file} hold {len(data) - start} bytes too many")
    if not tensors:
        raise UserError(f"{file} lists no weights: it is no Keras layers model")
    return tensors


def _keras_config(
    tensors: Tensors, layers: Mapping[str, Mapping[str, Any]], second: bool, where: str
) -> ResNetConfig:
    pattern = r"conv(\d)_block(\d+)_3_conv/kernel" if second else r"res(\d)([a-z])_branch2c/kernel"
    found = [match for name in tensors if (match := re.fullmatch(pattern, name))]
    stages = sorted({int(match[1]) for match in found})
    stem = tensors.get("conv1_conv/kernel" if second else "conv1/kernel")
    if not stages or stages != list(range(2, 2 + len(stages))) or stem is None:
        raise UserError(f"{where} names its layers otherwise than Keras's ResNet does")
    first = {s: next(m for m in found if int(m[1]) == s) for s in stages}
    norms = [x["config"] for x in layers.values() if x["class_name"] == "BatchNormalization"]
    epsilons = {float(norm["epsilon"]) for norm in norms}
    if len(epsilons) != 1:
        raise UserError(f"{where} has BatchNormalization layers of epsilon {sorted(epsilons)}")
    strided = "conv3_block1_1_conv" if second else "res3a_branch2a"
    strides = layers[strided]["config"]["strides"] if strided in layers else [2, 2]
    return ResNetConfig(
        stem=int(stem.shape[-1]),
        widths=tuple(int(tensors[first[s][0]].shape[-1]) for s in stages),
        depths=tuple(sum(int(match[1]) == s for match in found) for s in stages),
        stride_in_first=list(strides) == [2, 2],
        epsilon=epsilons.pop(),
    )


def _placed(unit: Unit, kernel: np.ndarray, *norm: np.ndarray) -> Tensors:
    """One unit's arrays under our names, joined with `/`."""
    path = "/".join(unit.path)
    scale, bias, mean, variance = norm
    return {
        f"params/{path}/convolution/kernel": kernel,
        f"params/{path}/normalization/scale": scale,
        f"params/{path}/normalization/bias": bias,
        f"batch_stats/{path}/normalization/mean": mean,
        f"batch_stats/{path}/normalization/var": variance,
    }


def _checked(flat: Tensors, config: ResNetConfig, where: str) -> Mapping[str, Any]:
    """The variables, of exactly the model's names and shapes."""
    wanted = variable_shapes(config)
    for name, leaf in wanted.items():
        if name not in flat:
            raise UserError(f"{where} gives no {name}, which {dataclasses.asdict(config)} has")
        if flat[name].shape != leaf.shape:
            raise UserError(
                f"{where} has shape {list(flat[name].shape)} for {name}, the configuration makes "
                f"it {list(leaf.shape)}"
            )
    spare = sorted(flat.keys() - wanted.keys())
    if spare:
        raise UserError(f"{where} has {spare[0]}, for which the configuration has no place")
    return flax.traverse_util.unflatten_dict({k: np.asarray(v) for k, v in flat.items()}, sep="/")
