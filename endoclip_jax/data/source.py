"""Where a batch's pixels and its randomness come from, each addressed by name, not by position."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from jaxtyping import Float, Int64

from endoclip_jax.data.transforms import UndecodableFrame, reduced_sides
from endoclip_jax.shards.index import Index
from endoclip_jax.shards.reader import CorruptFrame, read_frame

log = logging.getLogger(__name__)

_T = TypeVar("_T")


def named_generator(*name: object) -> np.random.Generator:
    """A generator seeded by a name such as (seed, stream, epoch, patient, frame ordinal).

    Unlike a generator seeded by a position in a pipeline, it draws the same whatever process,
    worker or order asks for it, on every machine.
    """
    digest = hashlib.sha256(_spelt(name)).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))


def named_uniforms(count: int, *name: object) -> Float[np.ndarray, " count"]:
    """So many numbers in [0, 1) drawn by a name, in a fifth of the time a generator takes."""
    digest = hashlib.shake_256(_spelt(name)).digest(4 * count)
    return np.frombuffer(digest, "<u4") * 2.0**-32


def _spelt(name: Sequence[object]) -> bytes:
    return "\x1f".join(map(str, name)).encode()


class Faults:
    """What could not be read: each thing once, logged by its message when first met."""

    def __init__(self) -> None:
        self._messages: dict[object, str] = {}
        self._lock = threading.Lock()

    def note(self, key: object, message: str) -> None:
        with self._lock:
            new = key not in self._messages
            self._messages[key] = message
        if new:
            log.warning("%s: skipped", message)

    def messages(self) -> list[str]:
        """The messages so far, in the order met."""
        with self._lock:
            return list(self._messages.values())


class FrameReader:
    """Frames of a prepared data set as pixels; damaged ones are noted in `faults`."""

    def __init__(self, index: Index, faults: Faults):
        self._index, self._faults = index, faults
        self._records, self._frames = index.records, index.frames

    def decoded(self, frame: int, decode: Callable[[bytes], _T]) -> _T | None:
        """`decode` of the frame's JPEG, or None if its checksum or its JPEG is wrong."""
        try:
            return decode(read_frame(self._index, frame))
        except CorruptFrame as error:
            self._faults.note(frame, str(error))
        except UndecodableFrame as error:
            row = self._frames[frame]
            record = self._records[row["record"]]
            self._faults.note(
                frame,
                f"frame {row['ordinal']} of examination {record['exam'].decode()} (frame row "
                f"{frame}) in {self._index.shards[record['shard']]} is no whole JPEG ({error})",
            )
        return None

    def canvas(self, frames: Int64[np.ndarray, " n"], size: int) -> tuple[int, int]:
        """Height and width that hold each of these frames as training decodes it for a model of
        side `size`.
        """
        own = self._frames[frames]
        sides = np.unique(np.stack([own["height"], own["width"]], axis=1), axis=0).tolist()
        reduced = np.array([reduced_sides(height, width, size) for height, width in sides])
        height, width = reduced.max(axis=0).tolist()
        return height, width

    def patient(self, record: int) -> str:
        """The patient's hash."""
        return self._records[record]["patient"].decode()

    def ordinal(self, frame: int) -> int:
        """The frame's place in its examination."""
        return int(self._frames[frame]["ordinal"])
