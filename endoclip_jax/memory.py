"""What becomes of memory that a process has done with, where glibc hands it out."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # of mallopt, from glibc's malloc.h
_LARGEST = 32 << 20  # bytes of one piece; glibc takes no more as a threshold

_everything_is_kept = False  # in this process, as glibc's own settings are


def keep_freed_memory(up_to: int | None = None) -> None:
    """Lets this process use freed memory again instead of giving it back to the system.

    By default glibc gives back a large piece as soon as it is free, and the kernel hands it out
    again page by page, each page wiped. Holds for the rest of the process: once everything is kept,
    a later bound changes nothing. Does nothing without glibc.

    Args:
      up_to: bytes that are kept, and none of pieces above 32 MB; None: all there ever was.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    global _everything_is_kept
    if up_to is None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, -1)
        _everything_is_kept = True
    elif not _everything_is_kept:
        mallopt(_TRIM_THRESHOLD, up_to)
        mallopt(_MMAP_THRESHOLD, _LARGEST)
