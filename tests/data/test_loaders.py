from __future__ import annotations

import logging
from collections import Counter
from itertools import islice

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st

from endoclip_jax.data.augmentation import DRAWS
from endoclip_jax.data.loaders import frame_batches, patient_batches, scoring_batches
from endoclip_jax.data.order import InOrder, Shuffled
from endoclip_jax.data.transforms import eval_image, reduced_sides
from endoclip_jax.errors import UserError
from endoclip_jax.shards.index import Index
from endoclip_jax.shards.prepare import prepare
from endoclip_jax.shards.reader import read_frame

SIZE = 16


def frames_of(index, records, candidates, **changes):
    arguments = {
        "records": records, "candidates": candidates, "global_batch": 6, "seed": 3,
        "stream": "stage1/round1", "image_size": SIZE, "train": True,
    }  # fmt: skip
    return frame_batches(index, **(arguments | changes))


def patients_of(index, records, candidates, **changes):
    scores = [np.sin(7.0 * own) for own in candidates]
    arguments = {
        "records": records, "candidates": candidates, "scores": scores, "global_batch": 6,
        "seed": 3, "stream": "stage3", "image_size": SIZE, "max_images": 4, "train": True,
    }  # fmt: skip
    return patient_batches(index, **(arguments | changes))


def first(batches, steps, start=0):
    iterator = batches.iterate(start)
    try:
        return list(islice(iterator, steps))
    finally:
        iterator.close()


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name, strict=True)


def joined(parts):
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@pytest.mark.parametrize("make", [frames_of, patients_of])
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("processes", [2, 3])
def test_processes_together_load_the_same_global_batch(
    index, records, candidates, make, train, processes
):
    whole = make(index, records, candidates, train=train)
    parts = [
        make(
            index, records, candidates, train=train, process_index=p, process_count=processes
        )
        for p in range(processes)
    ]  # fmt: skip
    for step in (0, 1, whole.steps_per_epoch - 1):
        assert_equal(joined([part.at(step) for part in parts]), whole.at(step))


@pytest.mark.parametrize("make", [frames_of, patients_of])
def test_a_step_number_is_a_complete_cursor(index, records, candidates, make):
    batches = make(index, records, candidates)
    unbroken = first(batches, 8)
    again = make(index, records, candidates)
    for step, batch in enumerate(first(again, 3, start=5), start=5):
        assert_equal(batch, unbroken[step])
        assert_equal(make(index, records, candidates).at(step), unbroken[step])


def test_threads_and_pieces_change_nothing(index, records, candidates, monkeypatch):
    many = joined(list(islice(frames_of(index, records, candidates).iterate(0, threads=4), 3)))
    monkeypatch.setattr("endoclip_jax.data.loaders._PIECE_IMAGES", 4)  # 6 rows: 4 and 2
    one = joined(list(islice(frames_of(index, records, candidates).iterate(0, threads=1), 3)))
    assert_equal(one, many)


def test_no_patient_twice_in_an_epoch_and_everyone_left_out_is_named(index, records, candidates):
    batches = frames_of(index, records, candidates)
    assert len(records) == 24  # of 23 patients
    assert (batches.steps_per_epoch, batches.left_out_per_epoch) == (3, 5)
    everyone = {patient.decode() for patient in index.records["patient"]}
    orders, absent = [], []
    for epoch in range(4):
        steps = range(3 * epoch, 3 * epoch + 3)
        drawn = np.concatenate([batches.at(step)["record"] for step in steps])
        patients = [index.records[record]["patient"].decode() for record in drawn]
        assert len(set(patients)) == 18
        assert set(patients) == everyone - set(batches.left_out(epoch))
        assert len(batches.left_out(epoch)) == 5
        orders.append(tuple(drawn))
        absent.append(frozenset(batches.left_out(epoch)))
    assert len(set(orders)) == 4
    assert len(set(absent)) > 1


def test_shuffle_is_uniform_over_epochs():
    order = Shuffled([str(i) for i in range(10)], 4, seed=0, stream="s")
    kept = Counter(order(step, row)[1] for step in range(2 * 400) for row in range(4))
    assert set(kept) == set(range(10))
    # 400 epochs of 8 in 10: 320 ± 8 times each.
    assert max(abs(count - 320) for count in kept.values()) < 5 * 8
    neighbours = np.mean([order(2 * e, 0)[1] == order(2 * e + 2, 0)[1] for e in range(400)])
    assert neighbours < 0.2


def test_epochs_draw_other_frames_and_both_examinations(index, records, candidates):
    batches = frames_of(index, records, candidates, global_batch=23)
    assert batches.left_out_per_epoch == 0
    drawn: dict[str, set[int]] = {}
    examinations = set()
    for step in range(30):
        batch = batches.at(step)
        assert batch["valid"].all()
        for record, frame in zip(batch["record"], batch["frame"], strict=True):
            assert index.frames[frame]["record"] == record
            patient = index.records[record]["patient"]
            drawn.setdefault(patient, set()).add(int(frame))
            if patient == index.records[0]["patient"]:
                examinations.add(int(record))
    assert len(examinations) == 2
    every = sum(len(own) for own in candidates)
    # A frame of 6 is missed 30 times in 236; nearly all are met.
    assert sum(map(len, drawn.values())) > 0.95 * every


def test_augmentation_is_redrawn_each_epoch_of_the_same_pixels(index, records):
    only = [index.frame_rows(row)[:1] for row in records.tolist()]
    batches = frames_of(index, records[:6], only[:6])
    by_frame: dict[int, list[dict[str, bytes]]] = {}
    for batch in (batches.at(step) for step in range(4)):
        for row, frame in enumerate(batch["frame"]):
            own = {name: batch[name][row].tobytes() for name in ("image", "augmentation")}
            by_frame.setdefault(int(frame), []).append(own)
    assert len(by_frame) == 6
    for drawn in by_frame.values():
        assert len({own["augmentation"] for own in drawn}) == 4
        assert len({own["image"] for own in drawn}) == 1


def test_training_decodes_into_the_corner_of_a_canvas_that_holds_every_candidate(tmp_path):
    """Frames of several sizes: the canvas is the largest decoded one, numbers say which part is."""
    sides = [(64, 64), (40, 96), (96, 40), (100, 90)]
    index = index_of_sizes(tmp_path, sides)
    records = index.rows("train")
    candidates = [index.frame_rows(int(row)) for row in records]
    batches = frames_of(index, records, candidates, global_batch=4)
    decoded = [reduced_sides(*own, SIZE) for own in sides]
    canvas = tuple(np.max(decoded, axis=0))
    for batch in (batches.at(step) for step in range(3)):
        assert batch["image"].shape == (4, *canvas, 3) and batch["valid"].all()
        for row, frame in enumerate(batch["frame"].tolist()):
            height, width = decoded[frame]
            whole = np.zeros((*canvas, 3), np.uint8)
            whole[:height, :width] = simplejpeg.decode_jpeg(
                read_frame(index, frame), min_height=height, min_width=width, fastupsample=True
            )
            np.testing.assert_array_equal(batch["image"][row], whole)
            assert batch["augmentation"][row, :2].tolist() == [height, width]


def index_of_sizes(folder, sides):
    rng = np.random.default_rng(0)
    for number, (height, width) in enumerate(sides):
        examination = folder / "records" / f"exam{number}"
        examination.mkdir(parents=True)
        (examination / "report.txt").write_text("The mucosa is normal. No polyp was seen.")
        blotches = rng.integers(60, 200, (height // 4, width // 4, 3), dtype=np.uint8)
        pixels = np.kron(blotches, np.ones((4, 4, 1), np.uint8))[:height, :width]
        pixels = np.pad(pixels, [(0, height - len(pixels)), (0, width - pixels.shape[1]), (0, 0)],
                        mode="edge")  # fmt: skip
        (examination / "0.jpg").write_bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(pixels)))
    prepare(
        folder / "records", folder / "shards", workers=1, salt=b"s" * 32, progress=False,
        splits=(100, 0, 0),
    )  # fmt: skip
    index = Index.open(folder / "shards")
    assert sorted(zip(index.frames["height"].tolist(), index.frames["width"].tolist(),
                      strict=True)) == sorted(sides)  # fmt: skip
    return index


def test_seed_and_stream_change_what_is_drawn(index, records, candidates):
    one = frames_of(index, records, candidates).at(0)
    for changes in ({"seed": 4}, {"stream": "stage1/round2"}):
        other = frames_of(index, records, candidates, **changes).at(0)
        assert not np.array_equal(one["record"], other["record"])


def test_pixels_depend_on_the_patient_not_on_the_place(index, records, candidates):
    """With another batch the same patient stands elsewhere, but is drawn and augmented alike."""

    def by_record(global_batch):
        batches = frames_of(index, records[1:20], candidates[1:20], global_batch=global_batch)
        loaded = joined([batches.at(step) for step in range(batches.steps_per_epoch)])
        return {
            int(record): (
                int(loaded["frame"][row]),
                loaded["image"][row].tobytes(),
                loaded["augmentation"][row].tobytes(),
            )
            for row, record in enumerate(loaded["record"])
        }

    small, large = by_record(2), by_record(9)
    both = small.keys() & large.keys()
    assert len(both) >= 17
    assert all(small[record] == large[record] for record in both)


def test_patient_view_samples_without_replacement(index, records, candidates):
    batches = patients_of(index, records, candidates)
    sampled = Counter()
    for batch in (batches.at(step) for step in range(12)):
        assert batch["image"].shape == (6, 4, *batches._view.canvas, 3)
        assert batch["augmentation"].shape == (6, 4, DRAWS)
        for row, record in enumerate(batch["record"]):
            mask, frames = batch["image_mask"][row], batch["frame"][row]
            own = index.frame_rows(int(record))
            assert mask.sum() == min(4, len(own))
            assert np.array_equal(mask, np.sort(mask)[::-1])  # padding stands last
            assert len(set(frames[mask])) == mask.sum()
            assert set(frames[mask]) <= set(own.tolist())
            assert (frames[~mask] == -1).all()
            assert not batch["image"][row][~mask].any()
            assert not batch["augmentation"][row][~mask].any()
            assert batch["image"][row][mask].any(axis=(1, 2, 3)).all()
            if len(own) > 4:
                sampled.update(frames.tolist())
    assert len(sampled) > 0.9 * sum(len(own) for own in candidates if len(own) > 4)


def test_patient_view_evaluates_the_highest_scores(index, records, candidates):
    scores = [np.round(np.sin(3.0 * own), 1) for own in candidates]
    scores[2][:] = 0.5  # ties
    batches = patients_of(index, records, candidates, train=False, scores=scores)
    loaded = joined(list(batches))
    assert loaded["valid"].sum() == len(records)
    found = {int(r): f for r, f in zip(loaded["record"], loaded["frame"], strict=True) if r >= 0}
    for record, own, score in zip(records, candidates, scores, strict=True):
        oracle = sorted(zip(own, score, strict=True), key=lambda pair: (-pair[1], pair[0]))[:4]
        frames = found[int(record)]
        assert frames[frames >= 0].tolist() == [frame for frame, _ in oracle]
        row = loaded["record"].tolist().index(record)
        expected = eval_image(read_frame(index, int(frames[0])), SIZE)
        np.testing.assert_array_equal(loaded["image"][row, 0], expected)


def test_evaluation_sees_every_record_once_in_even_batches(index, records, candidates):
    batches = frames_of(index, records, candidates, global_batch=10, train=False)
    assert (batches.steps_per_epoch, batches.left_out_per_epoch, len(batches)) == (3, 0, 3)
    loaded = list(batches)
    assert [int(batch["valid"].sum()) for batch in loaded] == [8, 8, 8]
    every = joined(loaded)
    assert every["record"][every["valid"]].tolist() == records.tolist()
    assert (every["record"][~every["valid"]] == -1).all()
    for image, frame in zip(every["image"][every["valid"]], every["frame"][every["valid"]],
                            strict=True):  # fmt: skip
        np.testing.assert_array_equal(image, eval_image(read_frame(index, int(frame)), SIZE))
    assert_equal(every, joined(list(frames_of(index, records, candidates, global_batch=10,
                                              train=False))))  # fmt: skip


@given(units=st.integers(0, 60), batch=st.integers(1, 12), balanced=st.booleans())
def test_in_order_covers_everything_once(units, batch, balanced):
    order = InOrder(units, batch, balanced)
    steps = [
        [order(step, row) for row in range(batch)] for step in range(order.steps_per_epoch)
    ]  # fmt: skip
    assert [unit[1] for step in steps for unit in step if unit] == list(range(units))
    sizes = [sum(unit is not None for unit in step) for step in steps]
    if sizes:
        assert max(sizes) - min(sizes) <= 1 if balanced else set(sizes[:-1]) <= {batch}
    assert len(steps) == -(-units // batch)


@settings(max_examples=30)
@given(st.data())
def test_shuffled_never_repeats_within_an_epoch(data):
    units = data.draw(st.integers(1, 50))
    batch = data.draw(st.integers(1, units))
    order = Shuffled([str(i) for i in range(units)], batch, data.draw(st.integers(0, 9)), "s")
    for epoch in (0, 1, 17):
        steps = range(epoch * order.steps_per_epoch, (epoch + 1) * order.steps_per_epoch)
        drawn = [order(step, row) for step in steps for row in range(batch)]
        assert {e for e, _ in drawn} == {epoch}
        absent = {int(name) for name in order.left_out(epoch)}
        assert sorted([unit for _, unit in drawn] + list(absent)) == list(range(units))


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_scoring_covers_every_frame_once(index, processes):
    frames = np.arange(len(index.frames))[::-1].copy()
    parts = [
        list(scoring_batches(index, frames, batch=12, image_size=SIZE, process_index=p,
                             process_count=processes))
        for p in range(processes)
    ]  # fmt: skip
    assert len({len(part) for part in parts}) == 1
    loaded = joined([joined(step) for step in zip(*parts, strict=True)])
    assert loaded["frame"][loaded["valid"]].tolist() == frames.tolist()
    assert (loaded["frame"][~loaded["valid"]] == -1).all()
    assert len(loaded["frame"]) == -(-len(frames) // 12) * 12
    expected = eval_image(read_frame(index, int(frames[5])), SIZE)
    np.testing.assert_array_equal(loaded["image"][5], expected)


def test_scoring_nothing_is_no_batch(index):
    nothing = np.zeros(0, np.int64)
    assert list(scoring_batches(index, nothing, batch=4, image_size=SIZE)) == []


def test_a_batch_too_large_names_the_largest(index, records, candidates):
    with pytest.raises(UserError, match=r"23 patients .* batch is 24.* largest that fits is 23"):
        frames_of(index, records, candidates, global_batch=24)
    with pytest.raises(UserError, match="3 processes"):
        frames_of(index, records, candidates, global_batch=8, process_count=3)
    with pytest.raises(UserError, match="no frame to draw from"):
        frames_of(index, records, [*candidates[:-1], candidates[0][:0]])


def damage(folder, frame):
    """Flips one byte in the middle of a frame, where it lies in its shard."""
    index = Index.open(folder)
    row = index.frames[frame]
    shard = folder / index.shards[index.records[row["record"]]["shard"]]
    place = int(row["offset"]) + int(row["length"]) // 2
    content = bytearray(shard.read_bytes())
    content[place] ^= 0x40
    shard.write_bytes(content)


def test_a_flipped_byte_is_found_and_the_next_candidate_taken(own_copy, caplog):
    frame = 1
    damage(own_copy, frame)
    index = Index.open(own_copy)
    record = int(index.frames[frame]["record"])
    own = index.frame_rows(int(record))
    batches = frames_of(index, np.array([record]), [own], global_batch=1)
    with caplog.at_level(logging.WARNING):
        drawn = [batches.at(step) for step in range(20)]
    healthy = frames_of(Index.open(own_copy), np.array([record]), [own[own != frame]],
                        global_batch=1)  # fmt: skip
    assert all(batch["valid"].all() for batch in drawn)
    assert frame not in {int(batch["frame"][0]) for batch in drawn}
    assert batches.corrupt == 1
    shard = index.shards[index.records[record]["shard"]]
    assert shard in batches.corrupt_names()[0]
    assert len(caplog.records) == 1  # once, though it was met several times
    assert f"frame row {frame}" in caplog.text
    assert index.records[record]["exam"].decode() in caplog.text
    assert healthy.at(0)["valid"].all()
    assert healthy.corrupt == 0


def test_the_next_candidate_is_the_cyclic_successor(own_copy):
    index = Index.open(own_copy)
    records = index.rows("train")
    record = next(row for row in records if index.records[row]["num_frames"] >= 4)
    own = index.frame_rows(int(record))
    before = frames_of(index, np.array([record]), [own], global_batch=1)
    last = next(step for step in range(99) if before.at(step)["frame"][0] == own[-1])
    damage(own_copy, own[-1])
    after = frames_of(Index.open(own_copy), np.array([record]), [own], global_batch=1)
    assert after.at(last)["frame"][0] == own[0]


def test_a_record_without_readable_frames_is_invalid_and_black(own_copy):
    record = 0
    own = Index.open(own_copy).frame_rows(record)
    for frame in own:
        damage(own_copy, frame)
    index = Index.open(own_copy)
    records = np.array([record, 1, 2, 3])
    candidates = [index.frame_rows(row) for row in records.tolist()]
    for make in (frames_of, patients_of):
        batches = make(index, records, candidates, global_batch=4)
        batch = batches.at(0)
        row = batch["record"].tolist().index(record)
        assert batch["valid"].tolist() == [place != row for place in range(4)]
        assert not batch["image"][row].any() and not batch["augmentation"][row].any()
        assert (batch["frame"][row] == -1).all()
        assert batches.corrupt == len(own)


def test_patient_view_fills_up_with_readable_frames(own_copy):
    index = Index.open(own_copy)
    record = next(row for row in index.rows("train") if index.records[row]["num_frames"] == 6)
    own = index.frame_rows(int(record))
    damage(own_copy, own[2])
    index = Index.open(own_copy)
    batches = patients_of(index, np.array([record]), [own], global_batch=1)
    for step in range(6):
        batch = batches.at(step)
        assert batch["image_mask"].all()
        assert own[2] not in batch["frame"]


def test_scoring_keeps_the_row_of_a_damaged_frame(own_copy):
    damage(own_copy, 3)
    index = Index.open(own_copy)
    batches = scoring_batches(index, np.arange(6), batch=4, image_size=SIZE)
    loaded = joined(list(batches))
    assert loaded["frame"].tolist() == [0, 1, 2, 3, 4, 5, -1, -1]
    assert loaded["valid"].tolist() == [True, True, True, False, True, True, False, False]
    assert not loaded["image"][3].any()
    assert batches.corrupt == 1


def test_bytes_that_are_no_jpeg_are_named_too(own_copy, monkeypatch):
    """A checksum can be right over bytes that were never a picture."""
    index = Index.open(own_copy)
    monkeypatch.setattr(
        "endoclip_jax.data.source.read_frame", lambda index, frame: b"\xff\xd8 no picture"
    )
    batches = scoring_batches(index, np.arange(2), batch=2, image_size=SIZE)
    assert not batches.at(0)["valid"].any()
    assert batches.corrupt == 2
    assert "no whole JPEG" in batches.corrupt_names()[0]


def test_a_picture_cut_off_leaves_no_pixels_behind(own_copy, monkeypatch):
    """Training decodes into the batch itself: what was decoded of a broken frame goes again."""
    index = Index.open(own_copy)
    monkeypatch.setattr(
        "endoclip_jax.data.source.read_frame", lambda index, frame: read_frame(index, frame)[:-400]
    )
    batches = frames_of(index, np.arange(6), [index.frame_rows(row) for row in range(6)])
    batch = batches.at(0)
    assert not batch["valid"].any() and not batch["image"].any()
    assert "no whole JPEG" in batches.corrupt_names()[0]
