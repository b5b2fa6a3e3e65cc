from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FAULTS = """
import ctypes, resource
ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: pages of one size on every machine
import numpy as np
from endoclip_jax.memory import keep_freed_memory
for up_to in {bounds}:
    keep_freed_memory(up_to)
for turn in range(40):
    if turn == 20:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    pictures = [np.ones(size << 20, np.uint8) for size in {sizes}]
    del pictures
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(bounds, sizes=(3, 1, 2)):
    """Pages the kernel hands out while pictures of so many MB are made and freed 20 times, after
    memory was kept up to each of the bounds in turn."""
    program = FAULTS.format(bounds=bounds, sizes=sizes)
    return int(
        subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout
    )


only_glibc = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="glibc alone can be told to keep memory"
)


@only_glibc
def test_freed_memory_is_used_again_instead_of_being_handed_out_anew():
    assert faults([64 << 20]) < 200 < faults([])


@only_glibc
def test_a_bound_takes_nothing_back_of_memory_that_is_all_kept():
    """Pictures may be prepared in a process whose steps keep everything."""
    assert faults([None, 64 << 20], [100, 50]) < 200 < faults([64 << 20], [100, 50])
