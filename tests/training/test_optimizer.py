"""The optimizer against its definition."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from endoclip_jax.training.optimizer import (
    MAX_LOGIT_SCALE,
    Schedule,
    clip_by_global_norm,
    decayed,
    make_optimizer,
    project_logit_scale,
)

PARAMS = {
    "clip": {
        "vision": {
            "up": {"kernel": np.ones((3, 2), np.float32), "bias": np.ones(2, np.float32)},
            "norm_1": {"scale": np.ones(3, np.float32)},
            "position_embedding": np.ones((4, 3), np.float32),
        },
        "text": {"token_embedding": np.ones((5, 3), np.float32)},
        "logit_scale": np.float32(2.0),
    }
}


def test_schedule_is_linear_then_cosine_to_zero():
    schedule = Schedule(steps=100, warmup_steps=20, learning_rate=0.5)
    for step in (0, 1, 10, 20, 21, 60, 99, 100):
        if step < 20:
            wanted = 0.5 * step / 20
        else:
            wanted = 0.5 * 0.5 * (1 + math.cos(math.pi * (step - 20) / 80))
        assert float(schedule(step)) == pytest.approx(wanted, abs=1e-6)


def test_only_kernels_decay():
    marks = jax.tree_util.tree_leaves_with_path(decayed(PARAMS))
    assert {jax.tree_util.keystr(path): mark for path, mark in marks if mark} == {
        "['clip']['vision']['up']['kernel']": True
    }


def adamw_by_hand(param, grads, rate, decay):
    """float64 AdamW, Loshchilov and Hutter, Algorithm 2; gradients already clipped."""
    param, mean, square = float(param), 0.0, 0.0
    for count, grad in enumerate(grads, 1):
        mean = 0.9 * mean + 0.1 * grad
        square = 0.98 * square + 0.02 * grad * grad
        step = (mean / (1 - 0.9**count)) / (math.sqrt(square / (1 - 0.98**count)) + 1e-6)
        param -= float(rate(count - 1)) * (step + decay * param)
    return param


def filled(tree, value):
    return jax.tree.map(lambda leaf: jnp.full_like(leaf, value), tree)


def test_updates_equal_adamw_by_hand():
    schedule = Schedule(steps=8, warmup_steps=2, learning_rate=0.1)
    optimizer = make_optimizer(schedule, 0.2)
    params = jax.tree.map(jnp.asarray, PARAMS)
    state = optimizer.init(params)
    rng = np.random.default_rng(0)
    grads = [float(rng.normal()) * 1e-2 for _ in range(8)]  # global norm below the clip

    @jax.jit
    def update(grad, state, params):
        updates, state = optimizer.update(filled(params, grad), state, params)
        return jax.tree.map(jnp.add, params, updates), state

    for grad in grads:
        params, state = update(grad, state, params)
    kernel = adamw_by_hand(1.0, grads, schedule, 0.2)
    bias = adamw_by_hand(1.0, grads, schedule, 0.0)
    np.testing.assert_allclose(params["clip"]["vision"]["up"]["kernel"], kernel, rtol=2e-5)
    np.testing.assert_allclose(params["clip"]["vision"]["up"]["bias"], bias, rtol=2e-5)
    np.testing.assert_allclose(params["clip"]["text"]["token_embedding"], bias, rtol=2e-5)


def test_gradients_are_clipped_to_global_norm_one():
    optimizer = make_optimizer(Schedule(10, 1, 1.0), 0.0)
    params = {"kernel": jnp.zeros(4)}
    big, unit = jnp.asarray([30.0, 40.0, 0.0, 0.0]), jnp.asarray([0.6, 0.8, 0.0, 0.0])
    update = jax.jit(optimizer.update)
    states = [update({"kernel": grad}, optimizer.init(params), params)[1] for grad in (big, unit)]
    for left, right in zip(*map(jax.tree.leaves, states), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-6)


@pytest.mark.parametrize("size", [0.0, 0.1, 3.0, np.inf, np.nan])
def test_clipping_equals_that_of_optax(size):
    ones = {"kernel": np.ones((3, 2), np.float32), "bias": np.ones(2, np.float32)}
    grads = {**ones, "kernel": np.float32(size) * ones["kernel"]}
    ours, wanted = (
        clip.update(grads, clip.init(grads))
        for clip in (clip_by_global_norm(2.0), optax.clip_by_global_norm(2.0))
    )
    assert jax.tree.structure(ours) == jax.tree.structure(wanted)
    for left, right in zip(*map(jax.tree.leaves, (ours, wanted)), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-6)


def test_frozen_prefix_never_moves():
    optimizer = make_optimizer(Schedule(10, 1, 1.0), 0.2, [("clip", "text")])
    params = jax.tree.map(jnp.asarray, PARAMS)
    grads = jax.tree.map(jnp.ones_like, params)

    @jax.jit
    def update(state, params):
        updates, state = optimizer.update(grads, state, params)
        return jax.tree.map(jnp.add, params, updates), state

    state = optimizer.init(params)
    for _ in range(3):
        params, state = update(state, params)
    np.testing.assert_array_equal(
        params["clip"]["text"]["token_embedding"], PARAMS["clip"]["text"]["token_embedding"]
    )
    assert float(jnp.abs(params["clip"]["vision"]["up"]["kernel"] - 1).max()) > 0


@pytest.mark.parametrize("value, wanted", [(-1.0, 0.0), (2.5, 2.5), (9.0, MAX_LOGIT_SCALE)])
def test_logit_scale_is_projected(value, wanted):
    params = {"clip": {"logit_scale": jnp.asarray(value), "kernel": jnp.asarray(9.0)}}
    projected = project_logit_scale(params)
    assert float(projected["clip"]["logit_scale"]) == pytest.approx(wanted)
    assert float(projected["clip"]["kernel"]) == 9.0
