"""Which patients and frames belong to which stage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from endoclip_jax.shards.index import FRAME, ITEM, RECORD, SPLITS, Index
from endoclip_jax.stages import cases

examinations = st.lists(
    st.fixed_dictionaries(
        {
            "split": st.integers(0, len(SPLITS) - 1),
            "item_count": st.integers(0, 4),
            "num_frames": st.integers(0, 3),
        }
    ),
    max_size=12,
)


def index_of(rows: list[dict[str, int]]) -> Index:
    records = np.zeros(len(rows), RECORD)
    for name in ("split", "item_count", "num_frames"):
        records[name] = [row[name] for row in rows]
    records["has_polyp"] = records["item_count"] > 0
    records["first_frame"] = np.cumsum(records["num_frames"]) - records["num_frames"]
    frames = np.zeros(int(records["num_frames"].sum()), FRAME)
    frames["record"] = np.repeat(np.arange(len(rows)), records["num_frames"])
    tables = {"records": records, "frames": frames, "items": np.zeros(0, ITEM), "polyps": frames}
    return Index(Path("nowhere"), {"fingerprint": "", "shards": []}, tables)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(examinations)
def test_every_examination_is_of_one_case_type(rows):
    index = index_of(rows)
    everyone = cases.training_rows(index, "all")
    assert everyone.tolist() == list(range(len(rows)))
    found = {
        0: cases.negatives(index, everyone),
        1: cases.single_polyp(index, everyone),
        2: cases.multi_polyp(index, everyone),
    }
    for kind, own in found.items():
        assert own.tolist() == [
            i for i, row in enumerate(rows) if min(row["item_count"], 2) == kind
        ]
    positive = cases.positives(index, everyone).tolist()
    assert positive == sorted([*found[1].tolist(), *found[2].tolist()])
    for number, split in enumerate(SPLITS):
        own = cases.training_rows(index, split)
        assert own.tolist() == [i for i, row in enumerate(rows) if row["split"] == number]
        assert cases.multi_polyp(index, own).tolist() == sorted(
            set(own.tolist()) & set(found[2].tolist())
        )


@settings(max_examples=50, deadline=None, derandomize=True)
@given(examinations, st.integers(0, 100))
def test_frames_stay_with_their_examination(rows, seed):
    index = index_of(rows)
    everyone = index.rows()
    chosen = everyone[np.random.default_rng(seed).random(len(everyone)) < 0.6]
    kept, frames = cases.with_frames(chosen, cases.all_frames(index, chosen))
    assert kept.tolist() == [i for i in chosen.tolist() if rows[i]["num_frames"]]
    for row, own in zip(kept, frames, strict=True):
        assert own.tolist() == np.flatnonzero(index.frames["record"] == row).tolist()
    shuffled = np.random.default_rng(seed).permutation(kept)
    np.testing.assert_array_equal(kept[cases.position_of(kept, shuffled)], shuffled)
