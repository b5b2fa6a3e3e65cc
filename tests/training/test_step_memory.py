"""Memory that a step frees is there for the next one."""

import platform
import resource
import subprocess
import sys

import devices
import pytest

ROWS, WIDTH = 1 << 21, 8
PROGRAM = f"""
import ctypes, resource, sys
ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: pages of one size on every machine
import jax, jax.numpy as jnp
from endoclip_jax.training.memory import keep_memory_of_steps
if sys.argv[1] == "kept":
    keep_memory_of_steps()
x, w = jnp.ones(({ROWS}, {WIDTH})), jnp.ones(({WIDTH}, {WIDTH}))
step = jax.jit(lambda x, w: jnp.sum((jnp.sin(x) @ w) @ w))
faults = []
for _ in range(12):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    step(x, w).block_until_ready()
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(*faults[4:])  # the first ones let the heap grow
"""
# Of one temporary: 64 MB, twice what glibc gives back whatever it has seen before. Smaller ones it
# keeps by itself, or not, by the order in which threads came to free theirs.
PAGES = ROWS * WIDTH * 4 // resource.getpagesize()


def faults(way: str) -> list[int]:
    """Pages that the kernel hands out during each of a process's later steps."""
    command = [sys.executable, "-c", PROGRAM, way]
    found = subprocess.run(
        command, env=devices.environment(), check=True, capture_output=True, text=True
    )
    return [int(count) for count in found.stdout.split()]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_a_step_meets_no_new_pages():
    # The median: another of the process's threads may grow the heap beside any one step.
    assert sorted(faults("kept"))[4] < PAGES // 10
    assert min(faults("returned")) > PAGES // 2
