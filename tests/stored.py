"""Whole records of a prepared data set, read from its shards."""

from __future__ import annotations

from endoclip_jax.shards.example import decode_example
from endoclip_jax.shards.tfrecord import scan_shard


def read_record(index, row):
    """Every feature of one record by its key."""
    record = index.records[row]
    shard = index.folder / index.shards[record["shard"]]
    (payload,) = [data for offset, data in scan_shard(shard) if offset == record["offset"]]
    return decode_example(payload)
