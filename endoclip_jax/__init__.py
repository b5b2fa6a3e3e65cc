"""Endo-CLIP: progressive image-text pre-training on raw colonoscopy records, in JAX."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from endoclip_jax.library import Model, load

__version__ = "0.1.0"
__all__ = ["Model", "__version__", "load"]


def __getattr__(name: str) -> Any:
    """`endoclip_jax.load` and `Model`, imported when asked for: the package itself stays light."""
    if name in ("Model", "load"):
        from endoclip_jax import library

        return getattr(library, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
