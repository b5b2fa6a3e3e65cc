"""Ends a job whose step outlasts its limit, as when another process hangs in a collective.

A process that waits for a device cannot raise, and may hold Python's lock while it waits, so that
no thread of it runs. A small process beside it therefore watches the deadline that every step
moves on: it says which step it is, and sends a signal whose handler is C's own `_exit`.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from endoclip_jax.errors import STEP_TOO_LONG

FIRST_STEP_FACTOR = 10
"""The first step after a rest compiles, and may take this many times the limit."""

_SIGNAL = signal.Signals(STEP_TOO_LONG)  # `_exit` as its handler ends with its number
_GUARD = """
import os, select, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGINT, signal.SIG_IGN)
allowed = sentence = None
while True:
    if not select.select([0], [], [], allowed)[0]:
        sys.stderr.write(sentence + chr(10))
        sys.stderr.flush()
        os.kill(int(sys.argv[1]), int(sys.argv[2]))
        break
    lines = os.read(0, 1 << 20).decode().splitlines()
    if not lines:
        break
    seconds, _, sentence = lines[-1].partition(" ")
    allowed = float(seconds) or None
"""


class Watchdog:
    """Watches from the first `step` on; a limit of 0 never ends anything.

    Attributes:
      doing: the step that was begun last, for messages.
    """

    def __init__(self, limit_s: float) -> None:
        """
        Args:
          limit_s: seconds a step may take.
        """
        self.doing = "the start"
        self._within = ""
        self._limit = limit_s
        self._resting = True
        self._guard: subprocess.Popen[bytes] | None = None

    def step(self, doing: str) -> None:
        """A step begins: the one before it has ended."""
        self.doing = doing = f"{self._within}{doing}"
        if self._limit <= 0:
            return
        allowed = self._limit * (FIRST_STEP_FACTOR if self._resting else 1)
        self._resting = False
        self._tell(
            allowed,
            f"watchdog: {doing} has taken longer than {allowed:g} s "
            f"(config.distributed.step_limit_s={self._limit:g}): the job ends here; look for a "
            "process that hangs, or raise the limit, and start it again",
        )

    @contextmanager
    def within(self, what: str) -> Iterator[None]:
        """Steps that begin meanwhile are steps of `what`, and are called so."""
        outer, self._within = self._within, f"{self._within}{what}, "
        try:
            yield
        finally:
            self._within = outer

    def rest(self) -> None:
        """No step runs until the next one begins."""
        self._resting = True
        if self._guard is not None:
            self._tell(0, "")

    def close(self) -> None:
        """Watches no longer."""
        if self._guard is not None and self._guard.stdin is not None:
            self._guard.stdin.close()
            self._guard.wait()
            self._guard = None

    def _tell(self, allowed: float, sentence: str) -> None:
        if self._guard is None:
            _exit = ctypes.CDLL(None)._exit
            ctypes.CDLL(None).signal(int(_SIGNAL), ctypes.cast(_exit, ctypes.c_void_p))
            self._guard = subprocess.Popen(
                [sys.executable, "-S", "-E", "-c", _GUARD, str(os.getpid()), str(int(_SIGNAL))],
                stdin=subprocess.PIPE,
            )
        assert self._guard.stdin is not None
        os.write(self._guard.stdin.fileno(), f"{allowed} {sentence}\n".encode())


def after(seconds: float, act: Callable[[], None]) -> threading.Timer:
    """Calls `act` unless cancelled in time; for waits that leave Python's lock to others."""
    timer = threading.Timer(seconds, act)
    timer.daemon = True
    timer.start()
    return timer
