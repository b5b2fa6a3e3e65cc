"""What becomes of the memory that a step on the CPU has done with."""

from __future__ import annotations

import sys

import jax

from endoclip_jax.memory import keep_freed_memory


def keep_memory_of_steps() -> None:
    """Has freed memory stay with the process, where JAX computes on a CPU with glibc.

    XLA allocates all temporaries of a step at once and frees them after it: 1 to 2 GB of ViT-B/32.
    Handed out anew for the next step, their pages have to be cleared: 0.5 to 1.9 s of 5 to 10 s, on
    one core of a virtual machine. The other side of it: memory once used is held until the process
    ends.

    Has to come before any device is touched: programs are run by the thread that calls them instead
    of one of the client's own, whose part of glibc's memory takes no large blocks. With more than
    one device in the process they may have threads of their own all the same: not measured.
    """
    if sys.platform != "linux":
        return
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    if jax.default_backend() == "cpu":
        keep_freed_memory()
