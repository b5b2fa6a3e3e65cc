"""TFRecord framing and positional reads: the bytes of a shard, nothing of what they mean.

A record is `length u64 | masked CRC-32C of length u32 | payload | masked CRC-32C of payload u32`,
little-endian (https://www.tensorflow.org/tutorials/load_data/tfrecord).
"""

from __future__ import annotations

import os
import struct
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Lock

import google_crc32c

HEADER_BYTES = 12
FOOTER_BYTES = 4
_LENGTH = struct.Struct("<Q")
_CRC = struct.Struct("<I")


class CorruptShard(Exception):
    """Bytes of a shard that are not what was written; the message names the shard and the place."""


def masked_crc(data: bytes) -> int:
    """CRC-32C of `data`, rotated and offset as TFRecord stores it."""
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def frame_record(payload: bytes) -> bytes:
    """The payload between its TFRecord header and footer."""
    length = _LENGTH.pack(len(payload))
    return b"".join(
        (length, _CRC.pack(masked_crc(length)), payload, _CRC.pack(masked_crc(payload)))
    )


def unframe_record(framed: bytes, where: str) -> bytes:
    """The payload of one framed record, both checksums verified; raises CorruptShard."""
    end = HEADER_BYTES + _payload_length(framed[:HEADER_BYTES], where)
    if len(framed) < end + FOOTER_BYTES:
        raise CorruptShard(f"{where} is cut off")
    payload = framed[HEADER_BYTES:end]
    if _CRC.unpack(framed[end : end + FOOTER_BYTES])[0] != masked_crc(payload):
        raise CorruptShard(f"{where} has a payload whose checksum is wrong")
    return payload


def _payload_length(header: bytes, where: str) -> int:
    if len(header) < HEADER_BYTES:
        raise CorruptShard(f"{where} is cut off")
    length, crc = header[:8], header[8:]
    if _CRC.unpack(crc)[0] != masked_crc(length):
        raise CorruptShard(f"{where} has a length whose checksum is wrong")
    return _LENGTH.unpack(length)[0]


def scan_shard(path: Path) -> Iterator[tuple[int, bytes]]:
    """(byte offset of the framed record, payload) of every record of a shard, in order."""
    offset, size = 0, path.stat().st_size
    with path.open("rb") as stream:
        while offset < size:
            stream.seek(offset)
            header = stream.read(HEADER_BYTES)
            where = f"the record at byte {offset} of {path.name}"
            length = _payload_length(header, where)
            body = stream.read(length + FOOTER_BYTES)
            payload = unframe_record(header + body, where)
            yield offset, payload
            offset += HEADER_BYTES + len(payload) + FOOTER_BYTES


class _OpenFile:
    """A read-only descriptor that closes with its last user."""

    def __init__(self, path: str) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))

    # Bound early: at the interpreter's end the module may be emptied before the last file goes.
    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        if hasattr(self, "descriptor"):
            close(self.descriptor)


class ShardFiles:
    """Positional reads from a folder's files; thread-safe, at most `limit` files open at once.

    `pread` keeps no position, so descriptors inherited over a fork are safe; pickled copies
    open their own.
    """

    def __init__(self, folder: Path, limit: int = 256) -> None:
        self._folder, self._limit = folder, limit
        self._open: OrderedDict[str, _OpenFile] = OrderedDict()
        self._lock = Lock()

    def __reduce__(self) -> tuple:
        return ShardFiles, (self._folder, self._limit)

    def read(self, name: str, offset: int, length: int) -> bytes:
        """Up to `length` bytes of file `name` at `offset` (fewer at its end)."""
        with self._lock:
            file = self._open.get(name)
            if file is None:
                file = self._open[name] = _OpenFile(os.fspath(self._folder / name))
                if len(self._open) > self._limit:
                    self._open.popitem(last=False)
        return os.pread(file.descriptor, length, offset)
