from __future__ import annotations

import pickle
import struct

import pytest

from endoclip_jax.shards.tfrecord import CorruptShard, ShardFiles, frame_record, scan_shard

PAYLOADS = [b"", b"a", b"\x00" * 1000, bytes(range(256)) * 9]


def crc32c(data):
    """Bit by bit, from the polynomial's definition."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data):
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


@pytest.fixture
def shard(tmp_path):
    path = tmp_path / "shard"
    path.write_bytes(b"".join(map(frame_record, PAYLOADS)))
    return path


def test_framing_against_an_independent_reader(shard):
    raw, read = shard.read_bytes(), []
    while raw:
        length, length_crc = struct.unpack("<QI", raw[:12])
        payload, (crc,) = raw[12 : 12 + length], struct.unpack("<I", raw[12 + length : 16 + length])
        assert length_crc == masked(raw[:8]) and crc == masked(payload)
        read.append(payload)
        raw = raw[16 + length :]
    assert read == PAYLOADS


def test_scanning_gives_offsets_and_payloads(shard):
    scanned = list(scan_shard(shard))
    assert [payload for _, payload in scanned] == PAYLOADS
    assert [offset for offset, _ in scanned] == [0, 16, 33, 1049]


@pytest.mark.parametrize("place", [2, 10, 13, 30, 600, 1055, -2])
def test_any_flipped_byte_is_found(shard, place):
    raw = bytearray(shard.read_bytes())
    raw[place] ^= 16
    shard.write_bytes(raw)
    with pytest.raises(CorruptShard, match="of shard"):
        list(scan_shard(shard))


@pytest.mark.parametrize("cut", [1, 10, 2305, 2315, 2318])
def test_a_cut_shard_is_found(shard, cut):
    shard.write_bytes(shard.read_bytes()[:-cut])
    with pytest.raises(CorruptShard, match="cut off"):
        list(scan_shard(shard))


def test_positional_reads_with_few_descriptors_and_after_pickling(tmp_path):
    for i in range(6):
        (tmp_path / f"{i}").write_bytes(bytes([i]) * 100)
    files = ShardFiles(tmp_path, limit=2)
    copy = pickle.loads(pickle.dumps(files))
    for reader in (files, copy):
        for i in (0, 1, 2, 3, 4, 5, 0, 5, 1):
            assert reader.read(f"{i}", 90, 20) == bytes([i]) * 10
