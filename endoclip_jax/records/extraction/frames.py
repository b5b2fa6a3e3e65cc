"""Frames: what one sentence says about each lesion, group or reference it speaks of."""

from __future__ import annotations

from dataclasses import dataclass, field

from endoclip_jax.records.extraction.quantities import Count

SEGMENTS = (
    "cecum",
    "ascending_colon",
    "hepatic_flexure",
    "transverse_colon",
    "splenic_flexure",
    "descending_colon",
    "sigmoid_colon",
    "rectosigmoid_junction",
    "rectum",
)


@dataclass
class Frame:
    """Slots of one lesion, group or reference; ``start`` and ``end`` are its span as evidence."""

    start: int
    end: int
    kind: str = "lesion"
    count: Count | None = None
    each: bool = False
    noun: str | None = None
    plural: bool = False
    definite: bool = False
    select: str | None = None
    both: bool = False
    label: str | None = None
    heading: bool = False
    weak: bool = False
    nearby: bool = False
    elsewhere: bool = False
    clause: int = 0
    picks: int = 1
    sites: list[str] = field(default_factory=list)
    site_counts: dict[str, int] = field(default_factory=dict)
    site_range: bool = False
    sizes: list[tuple[float | None, float]] = field(default_factory=list)
    bare_size: bool = False
    lead_sites: bool = False
    distances: list[float] = field(default_factory=list)
    attributes: dict[tuple[str, str], None] = field(default_factory=dict)
    codes: dict[tuple[str, str], None] = field(default_factory=dict)
    treatments: dict[str, None] = field(default_factory=dict)

    @property
    def opened(self) -> bool:
        """Whether something of this frame names a lesion, so that another name is another one."""
        return bool(self.noun or self.count or self.select or self.label or self.kind != "lesion")

    @property
    def introduces(self) -> bool:
        """Whether this frame brings up lesions rather than speaking of earlier ones."""
        if self.kind != "lesion" or self.select or self.definite:
            return False
        return bool(self.noun or self.count)

    @property
    def says_something(self) -> bool:
        return bool(self.attributes or self.codes or self.sizes or self.sites or self.distances)


def segments_between(first: str, last: str) -> list[str]:
    """Segments after ``first`` up to ``last`` along the colon, in either direction."""
    if first not in SEGMENTS or last not in SEGMENTS:
        return [last]
    start, stop = SEGMENTS.index(first), SEGMENTS.index(last)
    if start <= stop:
        return list(SEGMENTS[start + 1 : stop + 1])
    return list(SEGMENTS[stop:start][::-1])
