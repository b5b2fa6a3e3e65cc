"""Which split a patient belongs to: decided by the patient alone, never by the examination."""

from __future__ import annotations

from collections.abc import Sequence

SPLITS = ("train", "validation", "test")


def split_of(patient_hash: str, shares: Sequence[float | int] = (80, 10, 10)) -> str:
    """The split of a patient by the salted hash of the id.

    A hash falls evenly into [0, 1), which `shares` (any positive scale, in the order of SPLITS)
    cut into three intervals; so a data set that grows keeps every patient where it was.
    """
    place = int(patient_hash[:8], 16) / 2**32 * sum(shares)
    edge = 0.0
    for split, share in zip(SPLITS, shares, strict=True):
        edge += share
        if place < edge:
            return split
    return SPLITS[-1]
