from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow_datasets.proto import tf_example_pb2

from endoclip_jax.shards.example import decode_example, encode_example

KEYS = st.text(min_size=1, max_size=8)
STRINGS = st.lists(st.binary(max_size=300), max_size=4)
INTEGERS = st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(0, 130), max_size=5)


@settings(max_examples=80, deadline=None)
@given(st.dictionaries(KEYS, STRINGS, max_size=4), st.dictionaries(KEYS, INTEGERS, max_size=4))
def test_protobuf_reads_what_we_write_and_we_what_it_writes(strings, integers):
    integers = {f"int/{key}": values for key, values in integers.items()}
    encoded = encode_example(strings, integers)
    message = tf_example_pb2.Example.FromString(encoded.data)
    feature = message.features.feature
    assert {k: list(feature[k].bytes_list.value) for k in strings} == strings
    assert {k: list(feature[k].int64_list.value) for k in integers} == integers
    assert len(feature) == len(strings) + len(integers)
    for key, values in strings.items():
        for start, value in zip(encoded.offsets[key], values, strict=True):
            assert encoded.data[start : start + len(value)] == value
    assert decode_example(encoded.data) == {**strings, **integers}
    assert decode_example(message.SerializeToString()) == {**strings, **integers}


def test_order_of_features_does_not_matter():
    one = encode_example({"b": [b"1"], "a": [b"2"]}, {"c": [3]})
    other = encode_example({"a": [b"2"], "b": [b"1"]}, {"c": [3]})
    assert one.data == other.data


def test_what_is_no_example_is_refused():
    data = encode_example({"a": [b"x" * 20]}, {"b": [1, -1]}).data
    for broken in (data[:-3], b"\xff", data[:4] + b"\x0d" + data[5:]):
        with pytest.raises(ValueError):
            decode_example(broken)
    floats = tf_example_pb2.Example()
    floats.features.feature["f"].float_list.value.append(1.5)
    with pytest.raises(ValueError, match="neither bytes nor integers"):
        decode_example(floats.SerializeToString())
