"""`tf.train.Example` on the wire, written and read without TensorFlow or generated protobuf code.

Writing it ourselves gives what protobuf does not: the position of every byte string inside the
message, and the same bytes on every machine (features sorted by key). The messages
(tensorflow/core/example/{example,feature}.proto; every length-delimited field is tag 1 but the
kinds of Feature):

    Example{1: Features{1: repeated entry{1: key, 2: Feature{1: BytesList{1: repeated bytes}
                                                           | 3: Int64List{1: packed varints}}}}}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

Values = Sequence[bytes] | Sequence[int]

_BYTES_LIST, _INT64_LIST = 1, 3
_VARINT, _LENGTH_DELIMITED = 0, 2
_UINT64_MASK = (1 << 64) - 1


class EncodedExample(NamedTuple):
    """A serialised Example and where the byte strings of each feature lie inside it."""

    data: bytes
    offsets: dict[str, list[int]]


def encode_example(
    byte_features: Mapping[str, Sequence[bytes]], int_features: Mapping[str, Sequence[int]]
) -> EncodedExample:
    """Serialises an Example; `offsets[key][i]` is where the i-th byte string of `key` begins."""
    entries: list[tuple[str, bytes, list[int]]] = []
    for key, strings in byte_features.items():
        body, starts = _bytes_list(strings)
        entries.append((key, *_entry(key, _BYTES_LIST, body, starts)))
    for key, integers in int_features.items():
        packed = _packed(integers)
        body = _delimited(1, packed) if packed else b""
        entries.append((key, *_entry(key, _INT64_LIST, body, [])))
    entries.sort(key=lambda entry: entry[0])

    features_length = sum(len(entry) for _, entry, _ in entries)
    parts = [_tag(1, _LENGTH_DELIMITED), _varint(features_length)]
    position = sum(map(len, parts))
    offsets = {}
    for key, entry, starts in entries:
        if key in byte_features:
            offsets[key] = [position + start for start in starts]
        parts.append(entry)
        position += len(entry)
    return EncodedExample(b"".join(parts), offsets)


def decode_example(data: bytes) -> dict[str, list[bytes] | list[int]]:
    """Every feature of a serialised Example by key; ValueError if it is not one."""
    decoded: dict[str, list[bytes] | list[int]] = {}
    for _, features in _fields(data):
        for _, entry in _fields(_as_bytes(features)):
            parts = {number: _as_bytes(part) for number, part in _fields(_as_bytes(entry))}
            decoded[parts[1].decode()] = _decode_feature(parts.get(2, b""))
    return decoded


def _decode_feature(feature: bytes) -> list[bytes] | list[int]:
    values: list = []
    for kind, body in _fields(feature):
        for _, value in _fields(_as_bytes(body)):
            if kind == _BYTES_LIST:
                values.append(value)
            elif kind == _INT64_LIST:
                values.extend(_integers(value))
            else:
                raise ValueError(f"feature of kind {kind} is neither bytes nor integers")
    return values


def _packed(integers: Sequence[int]) -> bytes:
    """The integers as varints, one behind the other."""
    values = [int(integer) & _UINT64_MASK for integer in integers]
    if max(values, default=0) <= 0x7F:  # as most are: a byte each
        return bytes(values)
    return b"".join(map(_varint, values))


def _bytes_list(strings: Sequence[bytes]) -> tuple[bytes, list[int]]:
    """BytesList and the start of each string in it."""
    parts, starts, position = [], [], 0
    for string in strings:
        head = _tag(1, _LENGTH_DELIMITED) + _varint(len(string))
        starts.append(position + len(head))
        parts += [head, string]
        position += len(head) + len(string)
    return b"".join(parts), starts


def _entry(key: str, kind: int, body: bytes, starts: list[int]) -> tuple[bytes, list[int]]:
    """One entry of the feature map, and `starts` moved to positions in it."""
    kind_head = _tag(kind, _LENGTH_DELIMITED) + _varint(len(body))
    feature_length = len(kind_head) + len(body)
    head = (
        _delimited(1, key.encode())
        + _tag(2, _LENGTH_DELIMITED)
        + _varint(feature_length)
        + kind_head
    )
    entry_head = _tag(1, _LENGTH_DELIMITED) + _varint(len(head) + len(body))
    shift = len(entry_head) + len(head)
    return entry_head + head + body, [shift + start for start in starts]


def _tag(number: int, wire_type: int) -> bytes:
    return bytes([number << 3 | wire_type])


def _delimited(number: int, body: bytes) -> bytes:
    return _tag(number, _LENGTH_DELIMITED) + _varint(len(body)) + body


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    value, shift = 0, 0
    while True:
        if position >= len(data):
            raise ValueError("message is cut off")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7


def _fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    """(field number, value) of each field of a message."""
    position = 0
    while position < len(data):
        tag, position = _read_varint(data, position)
        if tag & 7 == _VARINT:
            value, position = _read_varint(data, position)
            yield tag >> 3, value
        elif tag & 7 == _LENGTH_DELIMITED:
            length, position = _read_varint(data, position)
            if position + length > len(data):
                raise ValueError("message is cut off")
            yield tag >> 3, data[position : position + length]
            position += length
        else:
            raise ValueError(f"wire type {tag & 7} does not occur in an Example")


def _integers(value: bytes | int) -> list[int]:
    """Packed varints, or one that stands alone, as signed 64-bit integers."""
    if isinstance(value, int):
        return [_signed(value)]
    integers, position = [], 0
    while position < len(value):
        integer, position = _read_varint(value, position)
        integers.append(_signed(integer))
    return integers


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _as_bytes(value: bytes | int) -> bytes:
    if isinstance(value, int):
        raise ValueError("message expected where a number stands")
    return value
