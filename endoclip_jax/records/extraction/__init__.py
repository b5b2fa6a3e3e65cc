"""From a colonoscopy report to an object of ``records/data/schema.json``."""

from __future__ import annotations

from endoclip_jax.records.extraction.rules import EXTRACTOR, extract

__all__ = ["EXTRACTOR", "extract"]
