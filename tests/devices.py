"""Fake CPU devices of a process that tests start or run in, and how it compiles for them."""

import os

# Nearly all time of the tests is compilation. As JAX's own, they do without most optimisations,
# and without the emitters of fused loops, which take two thirds of what then remains.
QUICK = {
    "XLA_FLAGS": "--xla_cpu_use_fusion_emitters=false",
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
}


def environment(devices: int = 1, optimised: bool = False) -> dict[str, str]:
    """This process's variables for one with `devices`; `optimised` as a user's."""
    how = {"XLA_FLAGS": "", "JAX_DISABLE_MOST_OPTIMIZATIONS": "0"} if optimised else QUICK
    flags = f"--xla_force_host_platform_device_count={devices} {how['XLA_FLAGS']}"
    # OMP: scikit-learn beside another worker
    return os.environ | how | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1"}
