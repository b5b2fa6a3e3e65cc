"""SIGTERM as a request that all processes of a job honour at the same place.

Alone, a handler notes the signal. With several processes any of them may get it, and none may stop
where the others go on: JAX's coordination service passes the request round and names the place
after the furthest that any of them has reached, so every process must ask equally often, and
nobody else may ask. Orbax would, at every save and with numbers of its own: while a `StopRequest`
is entered, the service is out of its sight.
"""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

import jax
from jax._src import distributed  # the service has no public name


class StopRequest:
    """Whether work should stop, as a context; asked with `reached` by all processes alike."""

    def __init__(self) -> None:
        self._noted = False
        self._asked = 0

    def __enter__(self) -> StopRequest:
        if jax.process_count() == 1:
            self._previous = signal.signal(signal.SIGTERM, self._note)
        else:  # JAX installed its own handler when the processes met
            self._service: Any = distributed.global_state.preemption_sync_manager
            distributed.global_state.preemption_sync_manager = None
        return self

    def __exit__(self, *_: object) -> None:
        if jax.process_count() == 1:
            signal.signal(signal.SIGTERM, self._previous)
        else:
            distributed.global_state.preemption_sync_manager = self._service

    def reached(self) -> bool:
        """Whether to save and stop here; once True it stays True."""
        if jax.process_count() > 1 and not self._noted:
            self._asked += 1
            self._noted = self._service.reached_sync_point(self._asked)
        return self._noted

    def _note(self, _signal: int, _frame: FrameType | None) -> None:
        self._noted = True
