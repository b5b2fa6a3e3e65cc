from __future__ import annotations

import json
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from endoclip_jax.data.selection import Selection, keep_top
from endoclip_jax.errors import UserError
from endoclip_jax.shards.index import Index

scored = st.lists(
    st.tuples(st.integers(0, 5), st.sampled_from([-1.5, 0.0, 0.25, 0.5, 3.0])), max_size=40
)


def number(rho, frames):
    """max(1, ceil(rho·K)) with rho read as the decimal it is written as."""
    return max(1, math.ceil(Fraction(str(rho)) * frames))


def best(frames, scores, count):
    return set(sorted(frames, key=lambda frame: (-scores[frame], frame))[:count])


@given(scored, st.sampled_from([0.01, 0.07, 0.1, 0.21, 0.3, 0.35, 0.5, 0.7, 1.0]))
def test_every_rule_against_loops(rows, rho):
    records = np.array([record for record, _ in rows], np.int64)
    scores = np.array([score for _, score in rows], np.float32)
    frames = range(len(rows))
    kept = {rule: keep_top(scores, records, rho, rule)
            for rule in ("per_patient", "pooled", "pooled_floor1")}  # fmt: skip
    own = {record: [f for f in frames if records[f] == record] for record in set(records.tolist())}
    per_patient = set()
    for members in own.values():
        per_patient |= best(members, scores, number(rho, len(members)))
    pooled = best(frames, scores, number(rho, len(rows))) if rows else set()
    floor = pooled.union(*(best(members, scores, 1) for members in own.values()))
    for rule, oracle in (
        ("per_patient", per_patient), ("pooled", pooled), ("pooled_floor1", floor)
    ):  # fmt: skip
        assert set(np.flatnonzero(kept[rule]).tolist()) == oracle, rule
        assert kept[rule].dtype == bool


def test_a_whole_product_is_not_rounded_up():
    """0.07 · 100 is 7.000000000000001 in floating point; 7 frames are asked for."""
    assert 0.07 * 100 > 7
    assert keep_top(np.arange(100.0), np.zeros(100, int), 0.07).sum() == 7
    assert keep_top(np.arange(12.0), np.zeros(12, int), 0.21).sum() == 3  # ceil(2.52)


def test_ties_go_to_the_earlier_frame():
    kept = keep_top(np.array([0.5, 0.5, 0.5, 0.5]), np.array([1, 1, 1, 1]), 0.5)
    assert kept.tolist() == [True, True, False, False]


def test_bad_arguments_are_told():
    scores, records = np.zeros(3), np.zeros(3, int)
    for rho in (0.0, -0.1, 1.01, math.nan):
        with pytest.raises(UserError, match="rho"):
            keep_top(scores, records, rho)
    with pytest.raises(UserError, match="pooled_floor1"):
        keep_top(scores, records, 0.2, "best")
    with pytest.raises(UserError, match="1 frame scores"):
        keep_top(np.array([0.0, math.nan, 1.0]), records, 0.2)


@pytest.fixture
def selection(index):
    rng = np.random.default_rng(0)
    frames = rng.permutation(len(index.frames))[:50]
    scores = rng.normal(size=50)
    kept = keep_top(scores, index.frames["record"][frames], 0.35)
    meta = {"checkpoint": "stage1_round1/3", "rho": 0.35, "rule": "per_patient", "round": 1}
    return Selection.create(index, frames=frames, scores=scores, kept=kept, meta=meta)


def test_rows_name_patient_and_ordinal(selection, index):
    assert (np.diff(selection.frame) > 0).all()
    for row in range(50):
        frame = index.frames[selection.frame[row]]
        assert selection.record[row] == frame["record"]
        assert selection.ordinal[row] == frame["ordinal"]
        assert selection.patient[row] == index.records[frame["record"]]["patient"]
    assert selection.meta["fingerprint"] == index.fingerprint


def test_kept_frames_and_scores(selection, index):
    total = 0
    for record in range(len(index.records)):
        frames = selection.kept_frames(record)
        expected = [f for f, r, k in zip(selection.frame, selection.record, selection.kept,
                                         strict=True) if r == record and k]  # fmt: skip
        assert frames.tolist() == expected
        total += len(frames)
        by_frame = dict(zip(selection.frame.tolist(), selection.score, strict=True))
        assert selection.scores_of(frames).tolist() == [by_frame[f] for f in frames.tolist()]
    assert total == selection.kept.sum()
    unscored = sorted(set(range(len(index.frames))) - set(selection.frame.tolist()))
    for frame in (unscored[0], unscored[-1], len(index.frames) + 5):
        with pytest.raises(KeyError, match=str(frame)):
            selection.scores_of(np.array([selection.frame[0], frame]))


def test_create_refuses_a_frame_scored_twice(index):
    with pytest.raises(ValueError, match="twice"):
        Selection.create(index, frames=np.array([1, 1]), scores=np.zeros(2),
                         kept=np.ones(2, bool), meta={})  # fmt: skip


def test_round_trip_and_the_same_bytes_every_time(selection, index, tmp_path):
    path = tmp_path / "stage1_round1" / "selection"
    assert not Selection.exists(path)
    selection.save(path)
    assert Selection.exists(path)
    first = path.with_name("selection.npz").read_bytes()
    loaded = Selection.load(path, index)
    for name in ("patient", "record", "frame", "ordinal", "score", "kept"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(selection, name), strict=True)
    assert loaded.meta["rho"] == 0.35
    assert loaded.meta["frames_kept"] == selection.kept.sum()
    loaded.save(path)
    assert path.with_name("selection.npz").read_bytes() == first
    assert sorted(p.name for p in path.parent.iterdir()) == ["selection.json", "selection.npz"]


def test_load_refuses_what_does_not_belong(selection, index, own_copy, tmp_path):
    path = tmp_path / "selection"
    with pytest.raises(UserError, match="stage 1"):
        Selection.load(path, index)
    selection.save(path)
    card = json.loads((own_copy / "dataset.json").read_text(encoding="utf-8"))
    (own_copy / "dataset.json").write_text(json.dumps(card | {"fingerprint": "another"}))
    with pytest.raises(UserError, match="another data set"):
        Selection.load(path, Index.open(own_copy))
    file = path.with_name("selection.npz")
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UserError, match="cannot be read"):
        Selection.load(path, index)
    meta = path.with_name("selection.json")
    assert json.loads(meta.read_text(encoding="utf-8"))["checkpoint"] == "stage1_round1/3"
