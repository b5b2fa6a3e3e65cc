"""Targets: the drawing in the module, zero rows, masks, and the norm strings of configs."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from reference import losses as oracle

from endoclip_jax.errors import UserError
from endoclip_jax.objectives.soft_targets import (
    morphological_similarity,
    multi_positive_targets,
    parse_target_norm,
    soft_targets,
    target_entropy,
)

ATTRIBUTES = jnp.asarray([[1, 1, 0], [1, 1, 0], [0, 1, 1], [0, 0, 0]], jnp.float32)


def test_the_drawing_of_the_module():
    similarity = morphological_similarity(ATTRIBUTES, ATTRIBUTES)
    np.testing.assert_allclose(
        similarity, [[1, 1, 0.5, 0], [1, 1, 0.5, 0], [0.5, 0.5, 1, 0], [0, 0, 0, 0]], atol=1e-6
    )
    np.testing.assert_allclose(
        soft_targets(similarity),
        [[0.4, 0.4, 0.2, 0], [0.4, 0.4, 0.2, 0], [0.25, 0.25, 0.5, 0], [0, 0, 0, 1]],
        atol=1e-6,
    )
    np.testing.assert_allclose(
        multi_positive_targets(similarity),
        [[0.5, 0.5, 0, 0], [0.5, 0.5, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]],
        atol=1e-6,
    )


def test_integer_attributes_are_taken():
    as_bytes = morphological_similarity(ATTRIBUTES.astype(jnp.uint8), ATTRIBUTES)
    np.testing.assert_array_equal(as_bytes, morphological_similarity(ATTRIBUTES, ATTRIBUTES))


@pytest.mark.parametrize("norm", ["l1", "none", ("power", 3.0), ("softmax", 0.2)])
def test_masked_targets_are_those_of_the_valid_patients(norm):
    valid = jnp.asarray([True, False, True, True])
    similarity = morphological_similarity(ATTRIBUTES, ATTRIBUTES)
    keep = np.flatnonzero(valid)
    targets = np.asarray(soft_targets(similarity, norm, valid))
    expected = oracle.target_rows(np.asarray(similarity)[np.ix_(keep, keep)], "morphology", norm)
    np.testing.assert_allclose(targets[np.ix_(keep, keep)], expected, atol=1e-6)
    assert not targets[1].any() and not targets[:, 1].any()
    np.testing.assert_allclose(
        target_entropy(jnp.asarray(targets), valid), oracle.entropy(expected), atol=1e-6
    )


def test_norm_strings():
    assert parse_target_norm("l1") == "l1"
    assert parse_target_norm("none") == "none"
    assert parse_target_norm("power(4)") == ("power", 4.0)
    assert parse_target_norm("softmax(0.1)") == ("softmax", 0.1)


@pytest.mark.parametrize(
    "text", ["l2", "power", "power()", "softmax(0)", "softmax(-1)", "power(.)"]
)
def test_a_norm_that_is_not_understood_is_the_users_mistake(text):
    with pytest.raises(UserError, match="target norm"):
        parse_target_norm(text)


def test_an_unknown_parsed_norm_is_refused():
    for norm in ("l3", ("cube", 2.0)):
        with pytest.raises(ValueError, match="unknown target norm"):
            soft_targets(jnp.eye(3), norm)
