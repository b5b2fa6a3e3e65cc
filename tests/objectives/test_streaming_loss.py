"""The streaming loss against the dense one and the float64 oracle, on 1 to 8 devices, 2 processes.

The oracle is built with loops from the method's notes and knows neither of the two.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from batches import OPTIONS, assert_is_the_oracle, random_batch, random_mask
from devices import environment
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from endoclip_jax.objectives.dense import contrastive_loss
from endoclip_jax.objectives.streaming import streaming_loss

L1, POWER = OPTIONS[2], OPTIONS[4]


def mesh_of(devices: int):
    return jax.make_mesh(
        (devices,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices]
    )


@cache
def step(option, devices=8, tile=3, implementation="streaming"):
    """Value and gradients, jitted; of batches that are split over the devices if they divide."""
    loss = contrastive_loss
    if implementation == "streaming":
        loss = streaming_loss(mesh_of(devices), tile=tile)
    target, norm = option

    def of_batch(v, t, scale, a_v, a_t, valid):
        return loss(v, t, scale, a_v, a_t, target=target, target_norm=norm, valid=valid)

    return jax.jit(jax.value_and_grad(of_batch, argnums=(0, 1, 2), has_aux=True))


def arguments_of(batch, logit_scale, valid, dtype=jnp.float32):
    """On the host, so that any mesh can take them."""
    v, t = (np.array(jnp.asarray(batch[name], dtype)) for name in ("v", "t"))
    return v, t, np.asarray(logit_scale, np.float32), batch["a_v"], batch["a_t"], valid


SIZE = 21  # divides neither the devices nor the tiles: 8 devices have 3 rows each, the last none


@pytest.mark.parametrize("option", OPTIONS, ids=str)
@pytest.mark.parametrize("devices", [1, 2, 4, 8])
def test_streaming_is_dense_is_the_oracle(option, devices):
    """Rows that are not valid hold NaN: they may reach nothing."""
    for seed, share, logit_scale in ((1, 1.0, 2.7), (2, 0.6, 4.6), (3, 0.0, 0.0)):
        batch, valid = random_batch(seed, SIZE), random_mask(seed, SIZE, share)
        arguments = arguments_of(batch, logit_scale, valid)
        for x in arguments[:2]:
            x[~valid] = np.nan
        result = step(option, devices)(*arguments)
        assert_is_the_oracle(result, batch, np.float32(logit_scale), valid, *option)
        assert not any(np.any(by[~valid]) for by in jax.device_get(result[1][:2]))
        if devices == 8:
            dense = step(option, implementation="dense")(*arguments)
            for got, wanted in zip(*map(jax.tree.leaves, (result, dense)), strict=True):
                scale = 1 + np.exp(logit_scale)
                np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6 * scale)


@settings(max_examples=6, deadline=None, derandomize=True)
@given(
    size=st.integers(1, 40),
    width=st.integers(1, 6),
    devices=st.sampled_from([1, 2, 4, 8]),
    tile=st.integers(1, 8),
    option=st.sampled_from(OPTIONS),
)
def test_any_shape(size, width, devices, tile, option):
    batch = random_batch(size, size, width, attributes=4)
    valid = random_mask(size, size, 0.8)
    result = step.__wrapped__(option, devices, tile)(*arguments_of(batch, 1.5, valid))
    assert_is_the_oracle(result, batch, 1.5, valid, *option)


def test_no_valid_row_is_zero_with_zero_gradients():
    batch = random_batch(0, SIZE)
    (loss, terms), gradients = step(POWER)(*arguments_of(batch, 2.0, np.zeros(SIZE, bool)))
    assert loss == 0 and not any(terms.values())
    assert not any(np.any(gradient) for gradient in gradients)


@pytest.mark.parametrize("option", [L1, POWER], ids=str)
def test_bfloat16_inputs_lose_nothing_more(option):
    """Products, sums and both parts of a gradient are float32; it is rounded once, at the end."""
    batch = random_batch(4, SIZE)
    arguments = arguments_of(batch, 2.0, np.ones(SIZE, bool), jnp.bfloat16)
    batch |= {"v": np.float32(arguments[0]), "t": np.float32(arguments[1])}
    value, gradients = step(option)(*arguments)
    exact = step(option)(*arguments_of(batch, 2.0, np.ones(SIZE, bool)))
    assert_is_the_oracle(exact, batch, 2.0, np.ones(SIZE, bool), *option)
    for got, wanted in zip(jax.tree.leaves(value), jax.tree.leaves(exact[0]), strict=True):
        np.testing.assert_array_equal(got, wanted)
    for got, wanted in zip(gradients[:2], exact[1][:2], strict=True):
        assert got.dtype == jnp.bfloat16
        np.testing.assert_array_equal(got, wanted.astype(jnp.bfloat16))


def test_the_identity_is_exact_in_float64():
    """At twice the precision the distance to the oracle falls with it: no term is missing."""
    batch = {name: np.asarray(x, np.float64) for name, x in random_batch(6, SIZE).items()}
    valid = random_mask(6, SIZE, 0.7)
    with jax.enable_x64(True):
        scale = np.float64(3.0)
        result = step.__wrapped__(("onehot", "l1"))(
            batch["v"], batch["t"], scale, batch["a_v"], batch["a_t"], valid
        )
    assert_is_the_oracle(result, batch, 3.0, valid, "onehot", "l1", rtol=1e-12, atol=1e-13)


def test_a_batch_split_over_two_axes():
    mesh = jax.make_mesh((2, 2, 2), ("data", "fsdp", "model"), axis_types=(AxisType.Auto,) * 3)
    batch, valid = random_batch(7, 16), np.ones(16, bool)
    v, t, scale, *rest = arguments_of(batch, 2.0, valid)
    split = NamedSharding(mesh, P(("data", "fsdp")))
    v, t, *rest = jax.device_put((v, t, *rest), split)
    loss = streaming_loss(mesh, ("data", "fsdp"), tile=3)

    @jax.jit
    def of_batch(v, t, scale, a_v, a_t, valid):
        def of(*leaves):
            return loss(*leaves, a_v, a_t, target="morphology", target_norm=POWER[1], valid=valid)

        return jax.value_and_grad(of, argnums=(0, 1, 2), has_aux=True)(v, t, scale)

    assert_is_the_oracle(of_batch(v, t, scale, *rest), batch, 2.0, valid, *POWER)


def test_unusable_targets_are_refused_by_name():
    loss = streaming_loss(mesh_of(1))
    v = jnp.ones((2, 3))
    with pytest.raises(ValueError, match="fuzzy"):
        loss(v, v, jnp.float32(1), target="fuzzy")
    with pytest.raises(ValueError, match="needs the attributes"):
        loss(v, v, jnp.float32(1), target="morphology")
    with pytest.raises(ValueError, match="unknown target norm 'cube'"):
        loss(v, v, jnp.float32(1), v, v, target="morphology", target_norm=("cube", 2.0))


def test_two_processes_of_four_devices(tmp_path):
    """Real processes that find each other over the network, each with its half of the batch."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    folder = Path(__file__).parent
    variables = environment(devices=4) | {
        "PYTHONPATH": os.pathsep.join(map(str, (folder.parent.parent, folder.parent, folder))),
    }
    processes = [
        subprocess.Popen(
            [sys.executable, folder / "one_of_two_processes.py", address, str(rank), tmp_path],
            env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in (0, 1)
    ]  # fmt: skip
    try:
        for process in processes:
            output, _ = process.communicate(timeout=240)
            assert process.returncode == 0, output[-4000:]
    finally:
        for process in processes:
            process.kill()
    batch, valid = random_batch(9, 24), np.arange(24) < 21
    for option in (L1, POWER):
        result = step(option)(*arguments_of(batch, 2.5, valid))
        leaves, structure = jax.tree.flatten(result)
        saved = np.load(tmp_path / f"{OPTIONS.index(option)}.npz")
        together = jax.tree.unflatten(structure, [saved[f"arr_{i}"] for i in range(len(leaves))])
        assert_is_the_oracle(together, batch, 2.5, valid, *option)
        for got, wanted in zip(jax.tree.leaves(together), leaves, strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-6)
