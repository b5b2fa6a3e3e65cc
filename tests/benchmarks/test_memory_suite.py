"""The memory suite by its command: what its JSON holds, and that each way saves what it says."""

import json

import jax
from tiny_model import micro

from endoclip_jax.benchmarks import memory
from endoclip_jax.benchmarks.command import run
from endoclip_jax.models.clip import CLIP, initial_params
from endoclip_jax.training.optimizer import Schedule, make_optimizer
from endoclip_jax.training.state import TrainState


def test_each_way_to_save_memory_saves_some(tmp_path, monkeypatch, capsys):
    size = micro(batches=(16, 16, 16), max_images=1)
    monkeypatch.setitem(memory.SIZES, "tiny", size)
    code = run(
        [
            "--suite=memory", "--size=tiny", "--batch=256", "--dtype=float32", "--accumulate=1,8",
            "--remat=none", "--fsdp=8", "--devices=0", f"--out={tmp_path}",
        ]
    )  # fmt: skip
    assert code == 0
    results = json.loads((tmp_path / "memory.json").read_text())
    assert (results["size"], results["batch"], results["dtype"]) == ("tiny", 256, "float32")
    rows = {(r["devices"], r["fsdp"], r["accumulate"], r["remat"]): r for r in results["rows"]}
    whole, parts = rows[1, 1, 1, "none"], rows[1, 1, 8, "none"]
    shared = rows[8, 8, 1, "none"]
    assert len(rows) == 3
    assert parts["temporaries"] < whole["temporaries"] / 2
    params = {"clip": initial_params(CLIP(size.model), 0)}
    state = TrainState.create(params, make_optimizer(Schedule(100, 10, 5e-5), 0.2))
    assert whole["state"] == parts["state"] == sum(x.nbytes for x in jax.tree.leaves(state))
    assert shared["state"] < whole["state"] / 4
    # What XLA plans for agrees: its arguments are the state and a device's part of the batch.
    assert 0 < shared["arguments"] - shared["state"] < (whole["arguments"] - whole["state"]) / 4
    shown = capsys.readouterr().out
    assert "| devices | fsdp | parts | remat |" in shown
    assert shown.count("| none |") == 3 and "written to" in shown
