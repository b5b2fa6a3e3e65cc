"""Which library multiplies matrices on a CPU: an option of XLA's compiler, program by program."""

from __future__ import annotations

from typing import Any

import jax

PRODUCTS = ("xla", "onednn")
_ONEDNN = {
    "xla_cpu_use_onednn": True,
    # Neither of the two does anything without the other.
    "xla_cpu_experimental_onednn_fusion_type": "LIBRARY_FUSION_TYPE_DOT",
}


def compiler_options(products: str) -> dict[str, Any] | None:
    """For `jax.jit`: `xla` leaves the choice to XLA, `onednn` takes oneDNN on a CPU.

    Float32 either way; sums in another order differ in the last bits. Of no meaning on other
    devices, where it changes nothing.
    """
    return dict(_ONEDNN) if products == "onednn" and jax.default_backend() == "cpu" else None
