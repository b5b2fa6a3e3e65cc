"""Where a batch's pixels and its randomness come from, each addressed by name, not by position."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable

import numpy as np

from endoclip_jax.data.transforms import UndecodableFrame
from endoclip_jax.shards.index import Index
from endoclip_jax.shards.reader import CorruptFrame, read_frame

log = logging.getLogger(__name__)

Transform = Callable[[bytes], np.ndarray]


def named_generator(*name: object) -> np.random.Generator:
    """A generator seeded by a name such as (seed, stream, epoch, patient, frame ordinal).

    Unlike a generator seeded by a position in a pipeline, it draws the same whatever process,
    worker or order asks for it, on every machine.
    """
    digest = hashlib.sha256("\x1f".join(map(str, name)).encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))


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
        # Plain views: a memory map's own item access costs more than a frame's checksum.
        self._records = np.asarray(index.records)
        self._frames = np.asarray(index.frames)

    def pixels(self, frame: int, transform: Transform) -> np.ndarray | None:
        """`transform` of the frame's JPEG, or None if its checksum or its JPEG is wrong."""
        try:
            return transform(read_frame(self._index, frame))
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

    def patient(self, record: int) -> str:
        """The patient's hash."""
        return self._records[record]["patient"].decode()

    def ordinal(self, frame: int) -> int:
        """The frame's place in its examination."""
        return int(self._frames[frame]["ordinal"])
