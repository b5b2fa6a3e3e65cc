"""Files of scores that a pass over all frames leaves behind as it goes, and whose they are."""

from __future__ import annotations

import hashlib
import io
import os
import time
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Float32, Int64

from endoclip_jax.errors import UserError

_PATIENCE = 60  # seconds


@dataclass(frozen=True)
class Chunk:
    """One file: a score for each of `frames`, and the digest of what made them."""

    path: Path
    frames: Int64[np.ndarray, " n"]
    digest: str

    def read(self) -> Float32[np.ndarray, " n"] | None:
        """The scores; None where the file is not there, not whole, or of something else."""
        try:
            with self.path.open("rb") as file, np.load(file) as stored:
                digest, scores = str(stored["digest"]), stored["scores"]
        except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile, zlib.error):
            return None
        fits = scores.shape == self.frames.shape and scores.dtype == np.float32
        return scores if fits and digest == self.digest else None

    def write(self, scores: Float32[np.ndarray, " n"]) -> None:
        """The file appears whole, or not at all.

        Raises:
          UserError: if it cannot be written.
        """
        content = io.BytesIO()
        np.savez(content, digest=np.asarray(self.digest), scores=scores)
        partial = self.path.with_suffix(".partial")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                file.write(content.getvalue())
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self.path)
        except OSError as error:
            with suppress(OSError):
                partial.unlink()
            raise UserError(
                f"scores cannot be written to {self.path} ({error.strerror or error}): make room "
                "and run the same command again, which goes on with the chunks that are there"
            ) from error

    def await_written(self) -> Float32[np.ndarray, " n"]:
        """Scores that some process has written; a network file system may show them late.

        Raises:
          UserError: if they do not come.
        """
        for _ in range(_PATIENCE):
            scores = self.read()
            if scores is not None:
                return scores
            time.sleep(1)
        raise UserError(
            f"{self.path} is not as it was written {_PATIENCE} s ago: all processes have to see "
            "the same workdir; look at its file system and run the same command again"
        )


def chunks_of(
    frames: Int64[np.ndarray, " n"], size: int, *, folder: Path, data: str, weights: str
) -> list[Chunk]:
    """Files in `folder` for `size` frames each, the last for what is left.

    Args:
      data: fingerprint of the data set.
      weights: checksum of the parameters that score.
    """
    pieces: Sequence[np.ndarray] = np.split(frames, range(size, len(frames), size))
    return [
        Chunk(folder / f"{number:06d}.npz", own, _digest(data, weights, own))
        for number, own in enumerate(pieces)
    ]


def _digest(data: str, weights: str, frames: np.ndarray) -> str:
    made_by = f"{data}\x1f{weights}\x1f".encode()
    return hashlib.sha256(made_by + np.ascontiguousarray(frames).tobytes()).hexdigest()
