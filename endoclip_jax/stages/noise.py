"""Errors added to the attributes on purpose, to see what errors of extraction would cost.

A lost bit is a finding that the extractor overlooked, an inverted one a finding misread. Each
item's errors come from the seed and the item's name alone, and a higher share adds to the errors
of a lower one, so that settings differ by the share and by nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, UInt8

from endoclip_jax.data.source import named_generator
from endoclip_jax.shards.index import Index


@dataclass(frozen=True)
class ExtractionNoise:
    """`drop`: share of the set bits that are lost; `flip`: share of all bits that are inverted."""

    drop: float = 0.0
    flip: float = 0.0
    seed: int = 0

    @property
    def adds(self) -> bool:
        """Whether there is any noise at all."""
        return self.drop > 0 or self.flip > 0

    def __str__(self) -> str:
        return f"attributes with noise: {self.drop:.0%} of set bits lost, {self.flip:.0%} inverted"

    def applied(
        self, index: Index, items: Int[np.ndarray, " n"], bits: UInt8[np.ndarray, "n a"]
    ) -> UInt8[np.ndarray, "n a"]:
        """The bits of some items with their errors; the same for every array of an item's bits."""
        if not self.adds:
            return bits
        noisy = bits.copy()
        for row, item in zip(noisy, items, strict=True):
            record = int(index.items["record"][item])
            ordinal = int(item) - int(index.records["first_item"][record])
            exam = index.records["exam"][record]
            rng = named_generator(self.seed, "extraction noise", bytes(exam).decode(), ordinal)
            lost, inverted = rng.random((2, len(row)))
            row[lost < self.drop] = 0
            row[inverted < self.flip] ^= 1
        return noisy


NO_NOISE = ExtractionNoise()
