"""ResNet with bottleneck blocks (He et al. 2016), for features of frozen, given weights.

    stem      7x7 convolution, stride 2; 3x3 maximum, stride 2
    block     1x1, 3x3, 1x1 convolutions, each normalised; plus the input, projected where its shape
              differs; ReLU
    feature   mean over all places of the last stage

Normalisation is by stored means and variances alone: nothing here is trained. The stride of a stage
is in its first block's 3x3 convolution (PyTorch's form, "v1.5") or first 1x1 (He's, and Keras's).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

_REDUCTION = 4  # a block works on a quarter of its channels


@dataclass(frozen=True)
class ResNetConfig:
    """Size of a ResNet; `stride_in_first` tells the two forms of a block apart."""

    stem: int = 64
    widths: tuple[int, ...] = (256, 512, 1024, 2048)
    depths: tuple[int, ...] = (3, 4, 6, 3)
    stride_in_first: bool = False
    epsilon: float = 1e-5


RESNET_50 = ResNetConfig()


class ResNet(nn.Module):
    """Images to one vector of the last stage's width each.

    Collections: `params` (kernels, scales, biases) and `batch_stats` (means, variances).
    """

    config: ResNetConfig

    @nn.compact
    def __call__(self, pixels: Float[Array, "b s s 3"]) -> Float[Array, "b d"]:
        """`pixels` scaled as the weights were trained -> `[b, widths[-1]]`, not normalised."""
        config = self.config
        x = jax.nn.relu(ConvNorm(config.stem, 7, 2, config.epsilon, name="stem")(pixels))
        x = nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
        for stage, (width, depth) in enumerate(zip(config.widths, config.depths, strict=True)):
            for block in range(depth):
                stride = 2 if stage > 0 and block == 0 else 1
                name = f"stage_{stage}_block_{block}"
                x = Bottleneck(width, stride, config.stride_in_first, config.epsilon, name=name)(x)
        return jnp.mean(x, axis=(1, 2))


class Bottleneck(nn.Module):
    """One residual block."""

    width: int
    stride: int
    stride_in_first: bool
    epsilon: float

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b i j d"]:
        inner = self.width // _REDUCTION
        first, second = (self.stride, 1) if self.stride_in_first else (1, self.stride)
        shortcut = x
        if x.shape[-1] != self.width or self.stride > 1:
            shortcut = ConvNorm(self.width, 1, self.stride, self.epsilon, name="shortcut")(x)
        x = jax.nn.relu(ConvNorm(inner, 1, first, self.epsilon, name="conv_0")(x))
        x = jax.nn.relu(ConvNorm(inner, 3, second, self.epsilon, name="conv_1")(x))
        x = ConvNorm(self.width, 1, 1, self.epsilon, name="conv_2")(x)
        return jax.nn.relu(x + shortcut)


class ConvNorm(nn.Module):
    """A convolution without bias, padded to keep places in line, and its normalisation."""

    features: int
    size: int
    stride: int
    epsilon: float

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b i j d"]:
        pad = self.size // 2
        x = nn.Conv(
            self.features,
            (self.size, self.size),
            (self.stride, self.stride),
            padding=((pad, pad), (pad, pad)),
            use_bias=False,
            name="convolution",
        )(x)
        norm = nn.BatchNorm(use_running_average=True, epsilon=self.epsilon, name="normalization")
        return norm(x)


def variable_shapes(config: ResNetConfig) -> dict[str, Any]:
    """Names and shapes of the variables, flat, names joined with `/`; nothing is computed."""
    model = ResNet(config)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3))))
    return flax.traverse_util.flatten_dict(shapes, sep="/")


def initial_variables(config: ResNetConfig, seed: int) -> dict[str, Any]:
    """Untrained variables from a seed, as host arrays: PyTorch's initialisation of a ResNet.

    Kernels are normal with variance 2 / (outputs x places), scales and variances 1, the rest 0.
    Drawn on the host: compiling so many draws takes longer than embedding a hospital's test set.
    """
    rng = np.random.default_rng(seed)
    flat: dict[str, np.ndarray] = {}
    for name, leaf in sorted(variable_shapes(config).items()):
        if name.endswith("kernel"):
            height, width, _, outputs = leaf.shape
            deviation = (2 / (height * width * outputs)) ** 0.5
            flat[name] = (deviation * rng.standard_normal(leaf.shape)).astype(np.float32)
        else:
            fill = np.ones if name.endswith(("scale", "var")) else np.zeros
            flat[name] = fill(leaf.shape, np.float32)
    return flax.traverse_util.unflatten_dict(flat, sep="/")
