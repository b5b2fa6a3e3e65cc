"""What becomes of the memory that a program on the CPU has done with."""

from __future__ import annotations

import ctypes
import sys

import jax

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of glibc's <malloc.h>


def keep_freed_memory() -> None:
    """Has freed memory stay with the process, where JAX computes on a CPU with glibc.

    XLA allocates all temporaries of a step at once and frees them after it: 1 to 2 GB of ViT-B/32.
    glibc returns so large a block to the system, and the next step meets every page of it as a new
    one that has to be cleared: a tenth of its time or more, a fifth in a virtual machine. The other
    side of it: memory once used is held until the process ends.

    Has to come before any device is touched: programs are run by the thread that calls them instead
    of one of the client's own, whose part of glibc's memory takes no large blocks. With more than
    one device in the process they have threads of their own all the same, and nothing changes.
    """
    if sys.platform != "linux":
        return
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    if jax.default_backend() != "cpu":
        return
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:  # glibc
        set_option(_MMAP_MAX, 0)
        set_option(_TRIM_THRESHOLD, -1)
