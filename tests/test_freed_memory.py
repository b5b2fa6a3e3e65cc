from __future__ import annotations

import subprocess
import sys

import pytest

FAULTS = """
import resource
import numpy as np
from endoclip_jax.memory import keep_freed_memory
if {kept}:
    keep_freed_memory(up_to=64 << 20)
for turn in range(40):
    if turn == 20:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    pictures = [np.ones(size << 20, np.uint8) for size in (3, 1, 2)]
    del pictures
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(kept):
    """Pages the kernel hands out while pictures of 6 MB in all are made and freed 20 times."""
    program = FAULTS.format(kept=kept)
    return int(
        subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout
    )


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone can be told to keep memory")
def test_freed_memory_is_used_again_instead_of_being_handed_out_anew():
    assert faults(kept=True) < 200 < faults(kept=False)
