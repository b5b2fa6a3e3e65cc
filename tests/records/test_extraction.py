"""The rule-based reader on sentences of our own, one group per ambiguity of the domain notes."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import pytest

from endoclip_jax.evaluation.extraction import extraction_measures, is_grounded
from endoclip_jax.records.attributes import BIT_NAMES, attribute_bits
from endoclip_jax.records.extraction import EXTRACTOR, extract

GOLD = [
    json.loads(line)
    for line in Path(__file__).with_name("data").joinpath("reports_gold.jsonl").open("utf-8")
] if False else []


def looks(polyp: dict) -> set[str]:
    """Names of the set bits, without their aspects."""
    bits = attribute_bits(polyp)
    return {name.split(".")[1] for name, bit in zip(BIT_NAMES, bits, strict=True) if bit}
