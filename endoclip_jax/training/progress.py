"""One line of progress: where, how fast, how long yet."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping

_INTERVAL = 10.0  # seconds between lines, so that a log file stays readable


class Progress:
    """Prints rate and remaining time to standard error, at most every ten seconds."""

    def __init__(self, name: str, start: int, total: int, *, shown: bool = True) -> None:
        self._name, self._start, self._total, self._shown = name, start, total, shown
        self._began = self._printed = time.monotonic()
        self._first: tuple[int, float] | None = None

    def show(self, step: int, values: Mapping[str, float]) -> None:
        now = time.monotonic()
        if self._first is None:  # compilation ends with the first report: rates count from here
            self._first = (step, now)
        if not self._shown or (now - self._printed < _INTERVAL and step < self._total):
            return
        self._printed = now
        since_step, since = self._first
        rate = (step - since_step) / (now - since) if now > since else 0.0
        left = f"{(self._total - step) / rate:.0f} s left" if rate else "measuring"
        print(
            f"{self._name}: step {step}/{self._total}  loss {values['loss']:.3f} "
            f"(floor {values['entropy']:.3f})  {rate:.1f} steps/s  {left}",
            file=sys.stderr,
            flush=True,
        )

    def close(self) -> None:
        if self._shown:
            seconds = time.monotonic() - self._began
            print(f"{self._name}: {seconds:.0f} s", file=sys.stderr, flush=True)


def shown_count(what: str) -> Callable[[int, int], None]:
    """A callback `(done, total)` that prints frames and time left, at most every ten seconds."""
    began = printed = time.monotonic()

    def show(done: int, total: int) -> None:
        nonlocal printed
        now = time.monotonic()
        if now - printed >= _INTERVAL:
            printed = now
            left = (total - done) * (now - began) / max(done, 1)
            print(f"{what}: {done}/{total} frames, {left:.0f} s left", file=sys.stderr, flush=True)

    return show
