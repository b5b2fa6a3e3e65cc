"""Predicted temporaries against XLA's own analysis of compiled programs; what `auto` takes."""

import pytest

from endoclip_jax.benchmarks.loss import ATTRIBUTES, DIM, run, temporaries
from endoclip_jax.objectives.dense import contrastive_loss
from endoclip_jax.objectives.memory import DENSE_LIMIT, predict_temporaries
from endoclip_jax.objectives.streaming import streaming_loss
from endoclip_jax.training.sharding import data_mesh


@pytest.mark.parametrize(
    ("target", "batch", "limit"),
    [("l1", 2**15, 0.04e9), ("l1", 2**18, 0.25e9), ("power(4)", 2**15, 0.06e9)],
)
def test_streaming_is_linear_in_the_batch_and_as_predicted(target, batch, limit):
    """Compiled, not executed: 262,144 pairs on eight devices, whose matrix would be 275 GB."""
    predicted = predict_temporaries(batch, DIM, ATTRIBUTES, 8).streaming
    measured = temporaries(streaming_loss(data_mesh()), data_mesh(), batch, target)
    assert 0.8 * predicted <= measured <= 1.1 * predicted
    assert measured <= limit


def test_dense_is_as_predicted():
    predicted = predict_temporaries(2**13, DIM, ATTRIBUTES, 8).dense
    measured = temporaries(contrastive_loss, data_mesh(), 2**13, "l1")
    assert 0.5 * predicted <= measured <= 1.5 * predicted


def test_auto_takes_dense_while_it_is_small():
    assert predict_temporaries(256, 512, 40, 8).choice == "dense"
    assert predict_temporaries(2**15, 512, 40, 8).choice == "streaming"
    limit = next(
        b for b in range(1, 2**14) if predict_temporaries(b, 64, 40, 1).dense > DENSE_LIMIT
    )
    assert predict_temporaries(limit - 1, 64, 40, 1).choice == "dense"
    assert predict_temporaries(limit, 64, 40, 1).choice == "streaming"
    more = predict_temporaries(limit, 64, 40, 4)
    assert more.choice == "dense" and more.dense < DENSE_LIMIT / 2


def test_the_suite_executes_what_it_compares():
    said = []
    results = run(data_mesh(), [64], [64], ["l1"], pairs=1, say=said.append)
    assert {row["implementation"] for row in results["memory"]} == {"dense", "streaming"}
    assert all(row["temporaries"] > 0 for row in results["memory"])
    (row,) = results["time"]
    for clock in ("wall", "cpu"):
        ratio = row["ratio"][clock]
        assert ratio["low"] <= ratio["median"] <= ratio["high"]
        assert row["dense"][clock]["median"] > 0 and row["streaming"][clock]["median"] > 0
    assert len(said) == 3
