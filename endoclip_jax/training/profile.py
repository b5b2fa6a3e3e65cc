"""A trace of a few steps, which TensorBoard's profile plugin and ui.perfetto.dev open."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import jax

_WARM = 2  # steps before the first traced one: compilation and first use of memory


class Profile:
    """Traces `steps` steps of a run into `folder`; none if `steps` is 0."""

    def __init__(
        self, folder: Path, *, steps: int, start: int, total: int, say: Callable[[str], None]
    ) -> None:
        """`start` steps are done, the run ends after `total`."""
        self._folder, self._say, self._running = folder, say, False
        self._first = max(start, min(start + _WARM, total - steps))
        self._last = min(total, self._first + steps) if steps else -1

    def step(self, step: int) -> AbstractContextManager[None]:
        """Around the update that makes step `step + 1`: names it, and starts the trace if due."""
        if step == self._first and self._last >= 0:
            jax.profiler.start_trace(str(self._folder), create_perfetto_trace=True)
            self._running = True
        return jax.profiler.StepTraceAnnotation("train", step_num=step + 1)

    def done(self, step: int, result: Any) -> None:
        """After step `step`, whose `result` is waited for before the trace ends."""
        if self._running and step >= self._last:
            jax.block_until_ready(result)
            self.close()

    def close(self) -> None:
        """Ends and writes a trace that is still running."""
        if not self._running:
            return
        self._running = False
        jax.profiler.stop_trace()
        self._say(
            f"traced steps {self._first + 1} to {self._last}: tensorboard --logdir={self._folder}, "
            "or open its perfetto_trace.json.gz in ui.perfetto.dev"
        )
