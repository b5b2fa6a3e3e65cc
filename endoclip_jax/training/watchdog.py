"""Ends a job whose step outlasts its limit, as when another process hangs in a collective.

A thread watches a deadline that every step moves on. A process that waits in a collective cannot
raise, so the thread says which step it is and ends the process; the others lose their connection to
it and end as well.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable

from endoclip_jax.errors import STEP_TOO_LONG

FIRST_STEP_FACTOR = 10
"""The first step after a rest compiles, and may take this many times the limit."""


class Watchdog:
    """Watches from the first `step` on; a limit of 0 never ends anything.

    Attributes:
      doing: the step that was begun last, for messages.
    """

    def __init__(self, limit_s: float, end: Callable[[str], None] | None = None) -> None:
        """
        Args:
          limit_s: seconds a step may take.
          end: what to do with the sentence when it takes longer; by default print it and exit.
        """
        self.doing = "the start"
        self._limit = limit_s
        self._end = end or _end_process
        self._deadline: float | None = None
        self._allowed = 0.0
        self._changed = threading.Condition()
        if limit_s > 0:
            threading.Thread(target=self._watch, daemon=True, name="watchdog").start()

    def step(self, doing: str) -> None:
        """A step begins: the one before it has ended."""
        with self._changed:
            first = self._deadline is None
            self._allowed = self._limit * (FIRST_STEP_FACTOR if first else 1)
            self.doing, self._deadline = doing, time.monotonic() + self._allowed
            if first:
                self._changed.notify()

    def rest(self) -> None:
        """No step runs until the next one begins."""
        with self._changed:
            self._deadline = None

    def _watch(self) -> None:
        with self._changed:
            while True:
                if self._deadline is None:
                    self._changed.wait()
                elif (left := self._deadline - time.monotonic()) > 0:
                    self._changed.wait(left)
                else:
                    self._end(
                        f"{self.doing} has taken longer than {self._allowed:g} s "
                        f"(config.distributed.step_limit_s={self._limit:g}): the job ends here; "
                        "look for a process that hangs, or raise the limit, and start it again"
                    )
                    self._deadline = None


def _end_process(sentence: str) -> None:
    print(f"watchdog: {sentence}", file=sys.stderr, flush=True)
    os._exit(STEP_TOO_LONG)
