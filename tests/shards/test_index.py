from __future__ import annotations

import json
import pickle

import google_crc32c
import numpy as np
import pytest
from stored import read_record

from endoclip_jax.errors import UserError
from endoclip_jax.shards.index import CARD_FILE, Index, table_file
from endoclip_jax.shards.prepare import prepare
from endoclip_jax.shards.reader import CorruptFrame, read_frame
from endoclip_jax.shards.tfrecord import CorruptShard, scan_shard


@pytest.fixture
def out(records, tmp_path):
    prepare(records(), tmp_path / "out", records_per_shard=3, workers=1, progress=False)
    return tmp_path / "out"


def test_the_index_agrees_with_a_scan_of_the_shards(out):
    index = Index.open(out)
    row = 0
    for shard in index.shards:
        for offset, payload in scan_shard(out / shard):
            record = index.records[row]
            assert (index.shards[record["shard"]], record["offset"]) == (shard, offset)
            assert record["length"] == len(payload) + 16
            example = read_record(index, row)
            frames = index.frame_rows(row)
            assert [read_frame(index, frame) for frame in frames] == example["frame/encoded"]
            assert index.frames["ordinal"][frames].tolist() == example["frame/ordinal"]
            assert index.frames["polyp"][frames].tolist() == example["frame/polyp"]
            assert (index.frames["record"][frames] == row).all()
            items = index.item_rows(row)
            bits = index.items["bits_text"][items]
            assert bits.ravel().tolist() == example["item/attributes"]
            assert (index.items["bits_image"][items] == bits).all()
            assert index.items["count"][items].tolist() == example["item/count"]
            assert record["item_count"] == sum(example["item/count"])
            descriptions = [index.description(item).encode() for item in items]
            assert descriptions == example["item/description"]
            assert [record["patient"]] == example["patient"]
            assert [record["exam"]] == example["exam"]
            assert [record["has_polyp"]] == example["report/has_polyp"]
            row += 1
    assert row == len(index.records) == 12


def test_rows_of_a_split(out):
    index = Index.open(out)
    parts = [index.rows(split) for split in ("train", "validation", "test")]
    np.testing.assert_array_equal(np.concatenate(parts), index.rows())
    assert len(parts[0]) and all(part.dtype == np.int64 for part in parts)
    with pytest.raises(UserError, match="no split 'holdout'"):
        index.rows("holdout")


def test_an_index_is_pickled_by_its_folder(out):
    index = Index.open(out)
    read_frame(index, 0)
    pickled = pickle.dumps(index)
    assert len(pickled) < 1000
    copy = pickle.loads(pickled)
    assert read_frame(copy, 5) == read_frame(index, 5)
    assert copy.fingerprint == index.fingerprint


def test_a_flipped_byte_is_found_and_named(out):
    index = Index.open(out)
    frame = index.frames[4]
    record = index.records[frame["record"]]
    shard = out / index.shards[record["shard"]]
    raw = bytearray(shard.read_bytes())
    place = int(frame["offset"]) + int(frame["length"]) // 2
    assert google_crc32c.value(bytes(raw[frame["offset"] :][: frame["length"]])) == frame["crc"]
    raw[place] ^= 1
    shard.write_bytes(raw)
    with pytest.raises(CorruptFrame) as error:
        read_frame(index, 4)
    for name in (shard.name, record["exam"].decode(), f"frame {frame['ordinal']} "):
        assert name in str(error.value)
    with pytest.raises(CorruptShard, match=shard.name):
        list(scan_shard(shard))
    assert read_frame(index, 3)
    shard.write_bytes(raw[: int(frame["offset"]) + 5])
    with pytest.raises(CorruptFrame):
        read_frame(Index.open(out), 4)


def test_another_schema_version_or_no_data_set_is_one_sentence(out, tmp_path):
    with pytest.raises(UserError, match=r"no prepared data set .*launch/prepare\.py"):
        Index.open(tmp_path)
    card = json.loads((out / CARD_FILE).read_text())
    (out / CARD_FILE).write_text(json.dumps(card | {"schema_version": 99}))
    with pytest.raises(UserError, match=r"version 99 and this program reads 2: move \w+ away"):
        Index.open(out)
    (out / CARD_FILE).write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        Index.open(out)


def test_a_damaged_index_is_one_sentence(out):
    path = out / table_file("frames")
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    with pytest.raises(UserError, match=r"cannot be read .*run launch/prepare\.py"):
        Index.open(out)
    np.save(path, np.load(out / table_file("records")))
    with pytest.raises(UserError, match="does not belong"):
        Index.open(out)
    path.unlink()
    with pytest.raises(UserError, match="cannot be read"):
        Index.open(out)
