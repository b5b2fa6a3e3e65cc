"""Training in JAX against the PyTorch reference, and the suite that reports it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_model import micro

from endoclip_jax.benchmarks import parity
from endoclip_jax.benchmarks.cases import Case, all_cases
from endoclip_jax.benchmarks.command import run
from endoclip_jax.benchmarks.material import SIZES, Material
from endoclip_jax.errors import UserError
from endoclip_jax.shards.index import Index

ROOT = Path(__file__).resolve().parents[2]
STEPS = 5
MICRO = micro(batches=(6, 4, 3), max_images=3, examinations=24)
SHORT = [
    Case("stage1", "onehot"),
    Case("stage2", "softmax(0.1)"),
    Case("stage3", "power(4)", "literal"),
]


@pytest.fixture(scope="module")
def data(tiny_shards) -> Material:
    return Material.of(Index.open(tiny_shards), MICRO, seed=1)


@pytest.fixture(scope="module")
def reference():
    return parity.load_reference()


def compare(case, data, reference, steps=STEPS):
    return parity.compare(
        case, data, steps=steps, learning_rate=MICRO.learning_rate, reference=reference
    )


@pytest.mark.parametrize("case", SHORT, ids=lambda case: case.label)
def test_training_agrees_with_pytorch(case, data, reference):
    result = compare(case, data, reference)
    assert result.agrees, parity.format_table([result])
    first, last = result.steps[0], result.steps[-1]
    assert first.parameters == 0  # warm-up starts at rate 0, so the first update moves nothing
    assert first.loss_difference < 1e-5 and first.worst_gradient < 1e-4, first
    assert last.parameters < 1e-3 and last.gradient < 1e-3, last
    assert last.loss != first.loss


def test_a_departure_is_seen(data, reference):
    """PyTorch without qk_norm beside JAX with it."""
    other = SimpleNamespace(
        Session=reference.Session,
        named=reference.named,
        Options=lambda **options: reference.Options(**{**options, "qk_norm": False}),
    )
    assert not compare(Case("stage3", "l1", "literal"), data, other, steps=1).agrees


def test_cases_name_every_target_and_attention_once():
    labels = [case.label for case in all_cases()]
    assert len(set(labels)) == len(labels)
    for target in ("l1", "power(4)", "softmax(0.1)", "none", "onehot"):
        assert f"stage2 {target}" in labels
        for attention in ("literal", "pairwise", "none"):
            assert f"stage3 {target} {attention}" in labels
    assert "stage3 l1 literal without qk_norm with residual" in labels


def difference(**changed) -> parity.StepDifference:
    values = {
        "step": 1,
        "loss": 1.0,
        "reference_loss": 1.0,
        "loss_difference": 0.0,
        "excess_difference": 0.0,
        "gradient": 0.0,
        "worst_gradient": 0.0,
        "worst_tensor": "clip.logit_scale",
        "parameters": 0.0,
    }
    return parity.StepDifference(**{**values, **changed})


@pytest.mark.parametrize(
    ("changed", "agrees"),
    [
        ({}, True),
        ({"loss_difference": 2e-4}, False),
        ({"excess_difference": 2e-4}, False),
        ({"worst_gradient": 2e-4}, False),
        ({"loss_difference": float("nan")}, False),
    ],
)
def test_what_counts_as_agreement(changed, agrees):
    result = parity.CaseResult(Case("stage2", "l1"), 0.0, (difference(**changed), difference()))
    assert result.agrees is agrees


def test_the_suite_prints_a_table_and_writes_json(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(SIZES, "micro", MICRO)
    out = tmp_path / "deep" / "parity.json"
    arguments = ["--suite=parity", "--size=micro", "--steps=1", "--only=stage2 l1", f"--out={out}"]
    assert run(arguments) == 0
    shown = capsys.readouterr().out
    assert "stage2 l1" in shown and str(out) in shown
    content = json.loads(out.read_text())
    assert content["suite"] == "parity" and content["seed"] == 0 and content["steps"] == 1
    assert {"torch", "jax", "transformers"} <= set(content["versions"])
    assert content["commit"] and content["hardware"]
    (case,) = content["cases"]
    assert case["agrees"] and case["case"]["target_norm"] == "l1"
    (step,) = case["steps"]
    assert step["step"] == 1
    assert np.isclose(step["loss"], step["reference_loss"], rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "no suite is named"),
        (["--suite=parity", "--only=stage9"], "begins with 'stage9'"),
        (["--suite=parity", "--steps=0"], "--steps=0"),
    ],
)
def test_a_mistake_is_one_sentence(arguments, words):
    with pytest.raises(UserError, match=words):
        run(arguments)


def test_an_unknown_suite_ends_the_launcher_with_one_sentence(tmp_path):
    done = subprocess.run(
        [sys.executable, str(ROOT / "launch" / "benchmark.py"), "--suite=fast"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr == (
        "error: no suite 'fast': give --suite=NAME with one of parity, step, loss, memory, loader, "
        "prepare, score, open, growth, all, table\n"
    )
