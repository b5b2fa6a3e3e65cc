"""Floating-point operations of a train step, and what share of the device's rate they come to.

Model FLOPs are those the mathematics asks for: the products of one forward pass, times three for
forward and backward. What rematerialisation computes again does not count, nor do the cheap
operations between products. (MFU: Chowdhery et al., *PaLM*, 2022, appendix B.)
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr

_FORWARD_AND_BACKWARD = 3

# Dense rates of one device as its maker states them, FLOP/s in bfloat16; float32 products run at
# rates that depend on settings, so no share is given for them.
_PEAKS = (
    ("h200", 989e12),
    ("h100", 989e12),
    ("a100", 312e12),
    ("l40s", 362e12),
    ("v6 lite", 918e12),
    ("v5p", 459e12),
    ("v5 lite", 197e12),
    ("v4", 275e12),
)


class Throughput:
    """Rates of the steps between two reports; what runs between them otherwise is left out."""

    def __init__(self, flops: float, devices: int, peak: float | None) -> None:
        """`flops` of a step of all devices; `peak`, if known, of one device a second."""
        self._flops, self._devices, self._peak = flops, devices, peak
        self._step, self._began = 0, 0.0

    def start(self, step: int) -> None:
        """From here on steps count; `step` of them are done."""
        self._step, self._began = step, time.monotonic()

    def report(self, step: int) -> dict[str, float]:
        """Rates since `start`, once step `step` is done; nothing if there was no step between."""
        steps, seconds = step - self._step, time.monotonic() - self._began
        if steps < 1 or seconds <= 0:
            return {}
        rate = self._flops * steps / seconds / self._devices
        values = {"steps_per_second": steps / seconds, "teraflops_per_device": rate / 1e12}
        return values if self._peak is None else {**values, "mfu": rate / self._peak}


def peak_flops(device_kind: str, dtype: str) -> float | None:
    """The rate that a device of this kind (`jax.Device.device_kind`) is sold with, if known."""
    if dtype != "bfloat16":
        return None
    return next((rate for name, rate in _PEAKS if name in device_kind.lower()), None)


def model_flops(loss: Callable[..., Any], params: Any, batch: Mapping[str, Any]) -> float:
    """FLOPs of a step that trains `loss(params, batch)`: from shapes alone, nothing is computed."""

    def shapes(tree: Any) -> Any:
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)

    traced = jax.make_jaxpr(loss)(shapes(params), shapes(dict(batch)))
    return _FORWARD_AND_BACKWARD * _products(traced.jaxpr)


def _products(jaxpr: Jaxpr) -> float:
    """FLOPs of all matrix products, with those of inner programs as often as these run."""
    total = 0.0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            total += _dot(equation)
            continue
        inner = [_products(program) for program in _programs(equation.params)]
        if inner:
            # Of a branch's or a custom gradient's several programs one runs: the largest.
            total += _repeats(equation) * max(inner)
    return total


def _repeats(equation: Any) -> int:
    """How often an inner program runs; one whose number of turns only its data say counts once."""
    if equation.primitive.name == "scan":
        return int(equation.params["length"])
    if equation.primitive.name == "shard_map":  # written for one device, run on each
        return int(equation.params["mesh"].size)
    return 1


def _programs(params: Mapping[str, Any]) -> Iterator[Jaxpr]:
    for value in params.values():
        for item in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(item, ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, Jaxpr):
                yield item


def _dot(equation: Any) -> float:
    left = equation.invars[0].aval.shape
    (contracted, _), _ = equation.params["dimension_numbers"]
    shared = math.prod(left[axis] for axis in contracted)
    return 2.0 * math.prod(equation.outvars[0].aval.shape) * shared
