"""How the counts, places and sizes of a frame are shared out among the lesions it tells of."""

from __future__ import annotations

from endoclip_jax.records.extraction.frames import Frame
from endoclip_jax.records.extraction.quantities import Count

# A stated number of alike lesions is listed one by one up to here, and kept as a group beyond.
LARGEST_LIST = 5

Span = tuple[float | None, float | None]
Group = tuple[int, list[str], Span | None]  # lesions, their sites, their size in mm


def shared_out(frame: Frame, sites: list[str]) -> tuple[Count, list[Group]]:
    """How many lesions a frame tells of, and the groups they fall into."""
    sizes = frame.sizes
    shared = sizes[0] if len(sizes) == 1 else None
    span = _span(frame)
    listed = len(sites) > 1 and not frame.site_range
    count = _count(frame, sites, listed)
    number = count.number
    if len(frame.distances) > 1 and (frame.each or number in (1, len(frame.distances))):
        here = [[site] for site in sites] if listed else [sites] * len(frame.distances)
        if len(here) == len(frame.distances):
            return count, _at_each(here, frame, count, number if frame.each and frame.count else 1)
    if frame.site_counts and listed:
        groups = []
        for site in sites:
            groups += _alike(frame.site_counts.get(site, 1), [site], shared)
        return Count(sum(frame.site_counts.get(site, 1) for site in sites)), groups
    if frame.each and listed:
        if len(sizes) == len(sites) and not count.approximate:
            return count, [(number, [s], z) for s, z in zip(sites, sizes, strict=True)]
        return count, _at_each([[site] for site in sites], frame, count, number)
    if count.approximate:
        return count, [(number, sites, span)]
    if number == 1:
        return count, [(1, sites, sizes[0] if sizes else None)]
    if len(sizes) == number:
        one_each = listed and len(sites) == number
        places = [[site] for site in sites] if one_each else [sites] * number
        return count, [(1, place, size) for place, size in zip(places, sizes, strict=True)]
    if listed and len(sites) == number:
        return count, [(1, [site], span) for site in sites]
    if listed and frame.each is False and number > len(sites):
        return count, [(number, sites, span)]
    return count, _alike(number, sites, span)


def _count(frame: Frame, sites: list[str], listed: bool) -> Count:
    if frame.count is not None:
        return frame.count
    if frame.plural:
        several = len(frame.sizes) > 1
        return Count(len(frame.sizes)) if several else Count(max(2, len(sites)), True)
    return Count(len(sites) if listed and not frame.definite else 1)


def _span(frame: Frame) -> Span | None:
    """One span over all the sizes of a frame."""
    if len(frame.sizes) < 2:
        return frame.sizes[0] if frame.sizes else None
    lows = [low for low, _ in frame.sizes if low is not None]
    return min(lows) if lows else None, max(high for _, high in frame.sizes)


def _at_each(here: list[list[str]], frame: Frame, count: Count, number: int) -> list[Group]:
    """The same number of lesions at each place; as many sizes as places go one to each."""
    sizes: list[Span | None] = [*frame.sizes]
    if len(sizes) != len(here):
        sizes = [_span(frame)] * len(here)
    groups = []
    for place, size in zip(here, sizes, strict=True):
        groups += [(number, place, size)] if count.approximate else _alike(number, place, size)
    return groups


def _alike(number: int, sites: list[str], size: Span | None) -> list[Group]:
    """A stated number of lesions that differ in nothing: one by one, unless they share a range."""
    ranged = size is not None and size[0] != size[1]
    if number > LARGEST_LIST or (ranged and number > 1):
        return [(number, sites, size)]
    return [(1, sites, size)] * number
