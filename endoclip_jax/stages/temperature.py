"""Which temperature the loss uses: the learned one, none, or a fixed one (method, key `loss`)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from endoclip_jax.errors import UserError


def log_scale(params: Mapping[str, Any], temperature: str | float) -> jax.Array:
    """The logarithm of the factor on cosines.

    `learned` takes the CLIP parameter; `none` is the paper's literal reading, factor 1; a number
    is a fixed temperature tau, factor 1/tau.
    """
    if temperature == "learned":
        return params["clip"]["logit_scale"]
    if temperature == "none":
        return jnp.zeros(())
    try:
        return jnp.asarray(-math.log(float(temperature)), jnp.float32)
    except ValueError:
        raise UserError(
            f"loss.temperature is {temperature!r}: give learned, none, or a positive number"
        ) from None
