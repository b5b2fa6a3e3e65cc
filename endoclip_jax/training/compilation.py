"""Where compiled programs are kept."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Mapping
from pathlib import Path

import jax

_CPU_FLAGS = Path("/proc/cpuinfo")


def keep_compiled(folder: Path, environment: Mapping[str, str] = os.environ) -> None:
    """Keeps compiled programs below `folder`, so that whoever runs or resumes it again starts soon.

    JAX's own variable JAX_COMPILATION_CACHE_DIR comes first. Below `folder` each kind of processor
    has a place of its own: JAX's key does not hold what a CPU can do, and a program of another
    machine that shares the folder could end in an illegal instruction.
    """
    if not environment.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(folder / _processor()))


def _processor() -> str:
    """Machine type and a digest of the processor's abilities, where the system tells them."""
    lines = _CPU_FLAGS.read_text().splitlines() if _CPU_FLAGS.exists() else []
    abilities = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return f"{platform.machine()}-{hashlib.sha256(abilities.encode()).hexdigest()[:12]}"
