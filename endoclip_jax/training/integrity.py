"""Checksums of arrays, the same on any devices: whether a checkpoint is what was written.

Orbax verifies its indices but not the arrays' bytes: one flipped bit in a data file restores as
another number, silently. So every checkpoint carries a checksum of each array, computed where the
array lies: every element's bits are mixed with its position, and the results summed modulo 2**32,
which no order of summation and no sharding changes. The mixing is one-to-one for each position: a
change of one element is always found, others but for one in 2**32.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_GOLDEN = 0x9E3779B9
_MIX = ((16, 0x85EBCA6B), (13, 0xC2B2AE35))  # the finaliser of MurmurHash3, with a last shift of 16
_CHUNK = 1 << 18  # elements at a time on the host: what stays in a core's cache


def checksums(tree: Any) -> dict[str, int]:
    """Of every array of a tree, by its path; arrays may be split over any devices."""
    names, leaves = _named(tree)
    # One after the other: a hundred small sums over devices, all under way at once, have waited for
    # one another for good in a job of several processes on a busy CPU.
    sums = [jax.block_until_ready(_device_checksum(jnp.asarray(leaf))) for leaf in leaves]
    return {name: int(value) for name, value in zip(names, sums, strict=True)}


def host_checksums(tree: Any) -> dict[str, int]:
    """The same numbers for NumPy arrays, without a device."""
    names, leaves = _named(tree)
    return {name: _host_checksum(leaf) for name, leaf in zip(names, leaves, strict=True)}


def joint(sums: Mapping[str, int]) -> str:
    """One number, in hexadecimal, for the checksums of a whole tree."""
    return hashlib.sha256(json.dumps(dict(sums), sort_keys=True).encode()).hexdigest()[:16]


def text_checksum(text: str) -> int:
    """CRC-32 of a text."""
    return zlib.crc32(text.encode())


def difference(found: Mapping[str, int], recorded: Mapping[str, int]) -> str | None:
    """The first array that is not as recorded, in words; None where all are."""
    for name, value in found.items():
        if name not in recorded:
            return f"it holds {name}, which was not written"
        if value != recorded[name]:
            return f"the bytes of {name} are not those that were written"
    missing = recorded.keys() - found.keys()
    return f"it lacks {min(missing)}" if missing else None


def _named(tree: Any) -> tuple[list[str], list[Any]]:
    """Paths as `params/clip/logit_scale`, alike for dataclasses, tuples and what Orbax restores."""
    pairs = jax.tree_util.tree_flatten_with_path(tree)[0]
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in pairs]
    return names, [leaf for _, leaf in pairs]


@jax.jit
def _device_checksum(x: jax.Array) -> jax.Array:
    x = x.astype(jnp.uint8) if x.dtype == bool else x
    bits = jax.lax.bitcast_convert_type(x, _unsigned(x.dtype)).astype(jnp.uint32)
    index, stride = jnp.zeros(bits.shape, jnp.uint32), 1
    for axis in reversed(range(bits.ndim)):  # not reshaped: that would gather what is split
        position = jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
        index = index + position * np.uint32(stride % 2**32)
        stride *= bits.shape[axis]
    return jnp.sum(_mixed(bits, index), dtype=jnp.uint32)


def _host_checksum(x: Any) -> int:
    x = np.ascontiguousarray(x).reshape(-1)
    x = x.astype(np.uint8) if x.dtype == bool else x
    bits = x.view(_unsigned(x.dtype))
    total = 0
    for start in range(0, len(bits), _CHUNK):
        part = bits[start : start + _CHUNK].astype(np.uint32)
        index = np.arange(start, start + len(part), dtype=np.uint64).astype(np.uint32)
        total += int(_mixed(part, index).sum(dtype=np.uint64))
    return total % 2**32


def _unsigned(dtype: Any) -> Any:
    return np.dtype(f"u{min(np.dtype(dtype).itemsize, 4)}")


def _mixed(bits: Any, index: Any) -> Any:
    """Works on NumPy and JAX arrays of uint32 alike."""
    bits = bits ^ (index * np.uint32(_GOLDEN))
    for shift, factor in _MIX:
        bits = (bits ^ (bits >> np.uint32(shift))) * np.uint32(factor)
    return bits ^ (bits >> np.uint32(16))
