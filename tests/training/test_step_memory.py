"""Memory that a step frees is there for the next one."""

import resource
import subprocess
import sys

import devices
import pytest

PROGRAM = """
import resource, sys
import jax, jax.numpy as jnp
from endoclip_jax.training.memory import keep_memory_of_steps
if sys.argv[1] == "kept":
    keep_memory_of_steps()
x = jnp.ones((2048, 2048))
step = jax.jit(lambda x: jnp.sum((jnp.sin(x) @ x) @ x))
for _ in range(8):  # the first ones let the heap grow
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    step(x).block_until_ready()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
PAGES = 2048 * 2048 * 4 // resource.getpagesize()  # of one temporary


@pytest.mark.skipif(sys.platform != "linux", reason="the system's C library is not glibc")
def test_a_step_meets_no_new_pages():
    faults = {
        way: int(
            subprocess.run(
                [sys.executable, "-c", PROGRAM, way], env=devices.environment(), check=True,
                capture_output=True, text=True,
            ).stdout
        )
        for way in ("returned", "kept")
    }  # fmt: skip
    assert faults["kept"] < PAGES // 10
    assert faults["returned"] > PAGES // 2
