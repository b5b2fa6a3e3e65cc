"""Reading one frame of a prepared data set."""

from __future__ import annotations

from typing import SupportsIndex

import google_crc32c

from endoclip_jax.shards.index import Index
from endoclip_jax.shards.tfrecord import CorruptShard


class CorruptFrame(CorruptShard):
    """A frame whose bytes are not what was written; names shard, record and frame."""


def read_frame(index: Index, frame_row: SupportsIndex) -> bytes:
    """The JPEG of one frame, in one positional read of exactly its bytes, checksum verified."""
    frame = index.frames[frame_row]
    record = index.records[frame["record"]]
    shard = index.shards[int(record["shard"])]
    jpeg = index.files.read(shard, int(frame["offset"]), int(frame["length"]))
    if len(jpeg) != frame["length"] or google_crc32c.value(jpeg) != frame["crc"]:
        raise CorruptFrame(
            f"frame {int(frame['ordinal'])} of examination {record['exam'].decode()} "
            f"(frame row {int(frame_row)}, record row {int(frame['record'])}) in {shard} is damaged"
        )
    return jpeg
