"""A demonstration small enough for many runs, and what two runs' metrics have in common."""

import json
import shutil
from pathlib import Path

from tiny_model import TINY_KEYS

from endoclip_jax.configuration import claim_workdir, read_command_line, resolve
from endoclip_jax.demonstration import demonstration_data
from endoclip_jax.shards.index import Index
from endoclip_jax.stages import cases

ROOT = Path(__file__).resolve().parents[2]
STAGES = ("stage1_round1", "stage1_round2", "stage2", "stage3")
BATCHES = {"stage1": 16, "stage2": 8, "stage3": 8}
COHORT = {"train": 64, "validation": 12, "test": 4, "frames": 6, "polyps": 2, "side": 48}


def small_data(folder, seed):
    """The demonstration's data: enough single- and multi-polyp patients for batches of eight."""
    demonstration_data(folder, seed=seed, **COHORT)
    return folder


def steps_an_epoch(data):
    """Of each stage, with the batches above."""
    index = Index.open(data / "shards")
    training = index.rows("train")
    patients = {
        "stage1": len(training),
        "stage2": len(cases.single_polyp(index, training)),
        "stage3": len(cases.multi_polyp(index, training)),
    }
    return {stage: patients[stage] // batch for stage, batch in BATCHES.items()}


def demonstration_arguments(workdir, per_epoch, *, steps, seed=0):
    """Of `launch/main.py`: stages 1 to 3, each of as many epochs as give at least `steps` steps."""
    keys = {f"cohort.{key}": value for key, value in COHORT.items()} | {"seed": seed}
    for stage, batch in BATCHES.items():
        keys |= {f"{stage}.global_batch": batch}
        keys |= {f"{stage}.epochs": -(-steps // per_epoch[stage])}
    return small_arguments("stage3", workdir, keys)


def small_arguments(goal, workdir, keys):
    """Of `launch/main.py` with the small model, and further keys."""
    keys = {f"model.{key}": value for key, value in TINY_KEYS.items()} | keys
    keys |= {f"{stage}.warmup_epochs": 1 for stage in (*BATCHES, "clip")}
    keys |= {"log.every_steps": 1, "preset": "demo"}
    return [
        f"--config=configs/{goal}.py",
        f"--workdir={workdir}",
        *(f"--config.{key}={value}" for key, value in keys.items()),
    ]


def command_line(arguments):
    """What `launch/main.py` makes of its arguments."""
    return read_command_line(["main.py", *arguments], ROOT)


def with_data(workdir, data, arguments):
    """A workdir of a run that has drawn its data already; gives the arguments back."""
    claim_workdir(resolve(*command_line(arguments)), workdir, [])
    shutil.copytree(data, workdir / "data")
    return arguments


def rows(folder):
    """Training rows of a stage's `metrics.jsonl` by step."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return {row["step"]: row for row in map(json.loads, lines) if row["split"] == "train"}


def compare(left, right):
    """(steps of both, whether all sample digests agree, the largest relative loss difference)."""
    one, other = rows(left), rows(right)
    steps = sorted(one.keys() & other.keys())
    same = one.keys() == other.keys() and all(
        one[step]["samples"] == other[step]["samples"] for step in steps
    )
    return (
        len(steps),
        same,
        max(abs(one[s]["loss"] - other[s]["loss"]) / abs(one[s]["loss"]) for s in steps),
    )
