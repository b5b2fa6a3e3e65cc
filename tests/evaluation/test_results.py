"""results.json there and back, its refusals, and the terminal table."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from endoclip_jax.errors import UserError
from endoclip_jax.evaluation import results
from endoclip_jax.evaluation.few_shot import FewShot
from endoclip_jax.evaluation.results import Row


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    labels = np.arange(84) < 68
    out = []
    for model, shift in (("CLIP (trained here)", 0.2), ("Endo-CLIP", 1.5)):
        scores = labels * shift + rng.normal(size=84)
        out += results.scored_rows(
            model, "malignancy", "zero-shot", scores, labels, np.arange(84), 0
        )
        out += results.scored_rows(
            model, "malignancy", "zero-shot P0", scores, labels, np.arange(84), 0
        )
        out += results.few_shot_rows(
            model, "malignancy", FewShot(0.1, (0.6, 0.7), (0.85, 0.95), (9, 9)), labels
        )
    return [*out, Row("CLIP (pre-trained)", "malignancy", "zero-shot", "auroc", None)]


def test_rows_state_counts_chance_and_spread(rows):
    zero, few = rows[1], rows[4]
    assert (zero.metric, zero.n_pos, zero.n_neg) == ("aupr", 68, 16)
    assert zero.chance == pytest.approx(68 / 84)
    assert zero.low < zero.value < zero.high
    assert few.setting == "10 %" and few.value == pytest.approx(0.65)
    assert few.high - few.value == pytest.approx(np.std([0.6, 0.7], ddof=1))


def test_there_and_back(tmp_path, rows):
    path = tmp_path / "run" / "results.json"
    written = results.write_results(
        path, rows, seed=3, seconds={"stage1": 61.5}, commit="abc", hardware="2 cores"
    )
    assert results.read_results(path) == written
    assert written.rows == tuple(rows)
    content = json.loads(path.read_text())
    assert set(content) == {"schema", "seed", "commit", "hardware", "seconds", "rows"}
    fields = {"model", "task", "setting", "metric", "value", "low", "high", "chance", "p"}
    assert set(content["rows"][0]) == fields | {"n_pos", "n_neg"}
    assert list(path.parent.iterdir()) == [path]


def test_rows_without_p_are_read(tmp_path, rows):
    """Files of versions that compared no models."""
    path = tmp_path / "results.json"
    results.write_results(path, rows, seed=3, seconds={}, commit="abc", hardware="2 cores")
    content = json.loads(path.read_text())
    for row in content["rows"]:
        del row["p"]
    path.write_text(json.dumps(content))
    assert results.read_results(path).rows == tuple(rows)


def test_an_interval_without_a_value_is_a_dash():
    nothing = results.Interval(float("nan"), float("nan"), float("nan"))
    row = results.interval_row("m", "selection", "s", "precision", nothing, chance=0.1, n_pos=0)
    assert (row.value, row.low, row.chance, row.n_pos) == (None, None, None, 0)


def test_not_a_number_is_never_written(tmp_path, rows):
    path = tmp_path / "results.json"
    with pytest.raises(ValueError):
        results.write_results(
            path,
            [Row("m", "t", "s", "auroc", float("nan"))],
            seed=0,
            seconds={},
            commit="",
            hardware="",
        )
    assert not path.exists()


def test_commit_and_hardware_are_found():
    assert re.fullmatch(r"[0-9a-f]{12}(\+changes)?|unknown", results.current_commit())
    assert "cores" in results.describe_hardware() and "jax" in results.describe_hardware()


def test_commit_is_unknown_outside_a_checkout(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "__file__", str(tmp_path / "results.py"))
    assert results.current_commit() == "unknown"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "does not exist"),
        ("{", "not JSON"),
        ('{"schema": 99}', "schema 99"),
        ("[]", "schema None"),
        ('{"schema": 1, "rows": [{"modell": 1}]}', "misnames a field"),
    ],
)
def test_unreadable_results_are_named(tmp_path, content, words):
    path = tmp_path / "results.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=words):
        results.read_results(path)


def test_table(rows):
    lines = results.format_table(rows).splitlines()
    assert lines[0] == "malignancy (68 positive, 16 negative)"
    assert re.split(r"\s{2,}", lines[1].strip()) == [
        "AUROC zero-shot",
        "AUROC 10 %",
        "AUPR zero-shot",
        "AUPR 10 %",
    ]
    assert len({len(line) for line in lines[1:6]}) == 1  # aligned
    assert re.search(
        r"^Endo-CLIP +\.\d{3} \(\.\d\d–(\.\d\d|1\.00)\) +\.650 ±\.071", "\n".join(lines), re.M
    )
    assert [line.split()[0] for line in lines[2:6]] == ["CLIP", "Endo-CLIP", "CLIP", "chance"]
    assert "–" in lines[4]
    assert lines[5].split()[1:] == [".500", ".500", ".810", ".810"]
    assert "detection" not in lines[0]


def test_table_of_nothing_is_only_its_note():
    assert results.format_table([]).startswith("zero-shot: value")
