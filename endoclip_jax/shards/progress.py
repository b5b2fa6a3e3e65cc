"""Progress of a preparation on standard error."""

from __future__ import annotations

import sys
import time

TERMINAL_INTERVAL, LOG_INTERVAL = 0.5, 10.0  # seconds between progress lines


class Progress:
    """One line on standard error: frames, rate, time left."""

    def __init__(self, frames: int, shards: int, kept: int, *, shown: bool) -> None:
        self._total, self._shards, self._kept, self._shown = frames, shards, kept, shown
        self._frames = self._shards_done = 0
        self._on_terminal = sys.stderr.isatty()
        self._began = self._printed = time.monotonic()

    def add(self, frames: int) -> None:
        """More frames are done."""
        self.show(self._frames + frames)

    def shard_done(self) -> None:
        """Another shard is done."""
        self._shards_done += 1

    def show(self, frames: int) -> None:
        """So many frames are done in all; prints them now and then."""
        self._frames = frames
        now = time.monotonic()
        interval = TERMINAL_INTERVAL if self._on_terminal else LOG_INTERVAL
        if self._shown and now - self._printed >= interval:
            self._printed = now
            self._print(now)

    def close(self) -> None:
        """Prints the last state."""
        if self._shown:
            self._print(time.monotonic())
            if self._on_terminal:
                print(file=sys.stderr)

    def _print(self, now: float) -> None:
        rate = self._frames / max(now - self._began, 1e-9)
        left = f"{(self._total - self._frames) / rate:.0f} s left" if rate else "measuring"
        kept = f" ({self._kept} kept)" if self._kept else ""
        line = (
            f"prepare: {self._frames}/{self._total} frames, {self._shards_done}/{self._shards} "
            f"shards{kept}, {rate:.1f} frames/s, {left}"
        )
        start, end = ("\r\033[K", "") if self._on_terminal else ("", "\n")
        print(f"{start}{line}", end=end, file=sys.stderr, flush=True)
