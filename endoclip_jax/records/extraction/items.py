"""Items: the lesions of a report, put together from the frames of its sentences.

Introducing frames become one item per lesion, with shared sizes and sites distributed; referring
frames ("the surface was lobulated", "both", "#2", "the sigmoid polyp") add to earlier items.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from endoclip_jax.records.extraction.frames import Frame
from endoclip_jax.records.extraction.groups import Span, shared_out
from endoclip_jax.records.extraction.quantities import Count


@dataclass
class Item:
    """One lesion, or one group that cannot be told apart (``count`` above 1)."""

    count: int = 1
    approximate: bool = False
    label: str | None = None
    entry: int | None = None
    noun: str = "polyp"
    sites: list[str] = field(default_factory=list)
    size: Span | None = None
    distance: float | None = None
    attributes: dict[tuple[str, str], None] = field(default_factory=dict)
    codes: dict[tuple[str, str], None] = field(default_factory=dict)
    treatments: dict[str, None] = field(default_factory=dict)
    evidence: dict[tuple[int, int], None] = field(default_factory=dict)
    clause: int = 0
    chosen: bool = False
    needs_removal: bool = False
    vague: bool = False
    header: int | None = None
    elliptic: bool = False


class Case:
    """The items read so far and which of them the text is speaking of."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.focus: list[Item] = []
        self.uncertain = False
        self._headers = 0

    def read(
        self, frames: list[Frame], offset: int, heading: list[str], entry: int | None = None
    ) -> None:
        """Takes in one sentence.

        ``heading`` is the site its paragraph is about, ``entry`` its number in a list.
        """
        _share_backwards(frames)
        if entry is not None and frames and frames[0].lead_sites:
            frames[0].heading = True  # "1. Ascending colon 5 mm"
        introduced: list[Item] = []
        target: list[Item] = []
        before: Frame | None = None
        for frame in frames:
            self.uncertain |= frame.bare_size
            if frame.kind == "other":
                if not introduced:
                    self.focus = []
                target = []
                continue
            if frame.kind == "denial":
                self._forget(introduced or self.focus, frame)
                continue
            if self._recounts(frame, introduced or self.focus):
                frame.select, frame.count, frame.noun = "all", None, None
            elif self._picks_one(frame, introduced or self.focus):
                frame.picks = frame.count.number if frame.count else 1
                frame.select, frame.count = "next", None
            if self._introduces(frame):
                self._inherit_sites(frame, before)
                before = frame
                target = self._expand(frame, offset, heading)
                for item in target:
                    item.clause = frame.clause
                introduced += target
                self.items += target
                continue
            target = self._targets(frame, introduced or self.focus, bool(introduced))
            if frame.says_something or frame.treatments:
                self._apply(frame, target, offset)
        for item in introduced:
            item.entry, item.clause = entry, -1
        if introduced:
            self.focus = introduced

    def finish(self) -> list[Item]:
        """All items, without announcements that later items spelled out."""
        kept = [item for item in self.items if not item.needs_removal or _removed(item)]
        for number in sorted({item.header for item in kept if item.header is not None}):
            announced = [item for item in kept if item.header == number]
            if any(item.chosen or item.size for item in announced):
                continue
            last = max(kept.index(item) for item in announced)
            listed = [item for item in kept[last + 1 :] if item.header is None]
            total = sum(item.count for item in listed)
            stated = sum(item.count for item in announced)
            approximate = any(item.approximate for item in announced)
            sited = any(set(item.sites) - {"diffuse"} for item in announced)
            if sited and not all(item.elliptic or not item.sites for item in listed):
                continue
            if (approximate and total >= 2) or (not approximate and total >= stated):
                if not approximate and total != stated:
                    self.uncertain = True
                for item in listed:
                    _merge(item, announced[0])
                kept = [item for item in kept if item not in announced]
            elif total:
                self.uncertain |= not approximate and not sited
        return kept

    def _picks_one(self, frame: Frame, base: list[Item]) -> bool:
        """ "Two polyps, one in the caecum ...": the one is of the two just announced."""
        if frame.kind != "lesion" or frame.noun or frame.count is None:
            return False
        homeless = [item for item in base if not (item.sites or item.chosen or item.distance)]
        shares = bool(frame.sites) and not frame.sizes and not frame.count.approximate
        if shares and len(base) > 1 and frame.count.number <= len(homeless):
            return True  # "Four 3 mm polyps: two in the caecum, ...": two of the four
        if frame.count != Count(1):
            return False
        waiting = [item for item in base if item.header and not item.chosen and item.size is None]
        return len(base) > 1 and any(
            not item.sites or not frame.sites or set(item.sites) & set(frame.sites)
            for item in waiting
        )

    def _recounts(self, frame: Frame, base: list[Item]) -> bool:
        """ "两枚息肉表面均光滑" after two were told speaks of these two."""
        if frame.kind != "lesion" or not frame.noun or frame.count is None or frame.definite:
            return False
        bare = not (frame.sizes or frame.sites or frame.distances or frame.select or frame.label)
        return bare and len(base) > 1 and frame.count == Count(sum(item.count for item in base))

    def _inherit_sites(self, frame: Frame, before: Frame | None) -> None:
        """ "In the sigmoid there were 2 polyps of 4 mm and 1 polyp of 10 mm": all are there."""
        if frame.sites or frame.distances or frame.label:
            return
        if frame.nearby and before is None and self.items:
            frame.sites = list(self.items[-1].sites)
        if before is None or frame.elsewhere:
            return
        if before.lead_sites or frame.noun is None:
            frame.sites = list(before.sites)
            frame.lead_sites = before.lead_sites

    def _introduces(self, frame: Frame) -> bool:
        if frame.label and (self._labelled(frame.label) or not frame.says_something):
            return False
        if frame.label:
            return self._unclaimed(frame) is None
        if frame.select:
            return False
        if frame.definite:
            unknown = frame.noun and not self._candidates(frame)
            return bool(unknown and (frame.sizes or not self.items))
        if frame.noun and not frame.count and not frame.plural and self._spoken_of_before(frame):
            return False
        if frame.introduces:
            return True
        structured = any(aspect in ("gross_form", "attachment") for aspect, _ in frame.attributes)
        structured |= any(system in ("paris", "yamada") for system, _ in frame.codes)
        if frame.lead_sites and frame.sizes and structured and not frame.heading:
            waiting = any(item.size is None for item in self.focus)
            return not waiting and not self._candidates(frame)  # "Sigmoid 6 mm Is"
        return frame.heading and bool(frame.sizes or structured)

    def _spoken_of_before(self, frame: Frame) -> bool:
        """A bare noun ("息肉表面光滑", "Polyp retrieved") speaks of what is in focus."""
        if not self.items or frame.sizes or frame.each:
            return False
        if frame.sites:
            known = any(set(item.sites) & set(frame.sites) for item in self.items)
            fresh = any(system in ("paris", "yamada") for system, _ in frame.codes)
            return known and not frame.heading and not fresh
        return bool(self.focus)

    def _labelled(self, label: str) -> list[Item]:
        """The items of a number: so named, or told under that number of a list."""
        named = [item for item in self.items if item.label == label]
        return named or [item for item in self.items if str(item.entry) == label]

    def _unclaimed(self, frame: Frame) -> Item | None:
        """The unnumbered item a number stands for: "Two polyps were seen. #1 ...", "NBI: #2"."""
        if not frame.label or not frame.label.isdigit():
            return None
        announced = len(self.focus) > 1
        pool = self.focus if announced else self.items
        if int(frame.label) > len(pool):
            return None
        item = pool[int(frame.label) - 1]
        told_anew = (frame.sizes or frame.sites) and not (announced and item.size is None)
        return None if item.label or told_anew else item

    def _expand(self, frame: Frame, offset: int, heading: list[str]) -> list[Item]:
        """One item per lesion of an introducing frame, or one for a group."""
        sites = frame.sites or list(heading)
        count, groups = shared_out(frame, sites)
        header = None
        if sum(number for number, _, _ in groups) > 1 and not frame.sizes:
            self._headers += 1
            header = self._headers
        items = []
        for number, places, size in groups:
            item = Item(
                count=number,
                approximate=count.approximate,
                label=frame.label,
                noun=frame.noun or "polyp",
                sites=list(places),
                size=size,
                needs_removal=frame.weak,
                vague=frame.noun in (None, "lesion"),
                header=header,
                elliptic=frame.noun is None,
            )
            items.append(item)
        self._apply(frame, items, offset, sized=True)
        for item in items:
            item.chosen = False
        return items

    def _candidates(self, frame: Frame) -> list[Item]:
        """Earlier items that a definite noun phrase can mean."""
        found = self.items
        if frame.sites:
            found = [item for item in found if set(item.sites) & set(frame.sites)]
        if frame.sizes:
            fitting = [item for item in found if item.size is None or item.size in frame.sizes]
            found = fitting if frame.sites or fitting else []
        return found

    def _targets(self, frame: Frame, base: list[Item], same_sentence: bool) -> list[Item]:
        """The items a referring frame speaks of."""
        if frame.label:
            named = self._labelled(frame.label)
            unclaimed = self._unclaimed(frame)
            if not named and unclaimed is not None:
                unclaimed.label = frame.label
                named = [unclaimed]
            self.focus = named or self.focus
            return named
        if frame.select:
            return self._selected(frame, base)
        if frame.definite or frame.noun:
            if frame.sites or frame.sizes:
                found = [item for item in self._candidates(frame)]
                near = [item for item in found if item in base]
                found = near or found
                return found if frame.plural else found[-1:]
            return base
        if frame.sites:
            there = [item for item in base if set(item.sites) & set(frame.sites)]
            return there or [item for item in base if not item.sites]
        return base

    def _selected(self, frame: Frame, base: list[Item]) -> list[Item]:
        several = base if len(base) > 1 else self.items
        if frame.select == "all":
            if frame.both and len(base) < 2:
                return self.items[-2:]
            if len(base) == 1 and base[0].count == 1:
                return list(self.items)
            # "…;直肠见两枚,均为亚蒂": of the clause, unless it told of one alone.
            clause = [item for item in base if item.clause == frame.clause]
            if sum(item.count for item in clause) > 1:
                return clause
            return list(base) or list(self.items)
        if frame.select in ("largest", "smallest"):
            group = [item for item in base if item.count > 1]
            if len(base) == 1 and group:
                return group
            return _extreme(several, frame)
        if frame.select == "next":
            return [item for item in several if not item.chosen][: frame.picks]
        if frame.select == "rest":
            return [item for item in several if not item.chosen]
        if frame.select == "last":
            return several[-1:]
        if frame.select == "1-2":
            return several[:2]
        ordinal = int(frame.select or 1) - 1
        return several[ordinal : ordinal + 1]

    def _apply(self, frame: Frame, items: Iterable[Item], offset: int, sized: bool = False) -> None:
        """Adds what the frame says to the items; fills size, site and distance only if empty."""
        items = list(items)
        one_each = len(frame.sizes) == len(items) > 1
        for position, item in enumerate(items):
            item.attributes |= frame.attributes
            item.codes |= frame.codes
            item.treatments |= frame.treatments
            if frame.distances and item.distance is None:
                evenly = len(items) % len(frame.distances) == 0
                place = position * len(frame.distances) // len(items) if evenly else 0
                item.distance = frame.distances[place]
            if not item.sites and frame.sites:
                spread = len(frame.sites) == len(items) > 1
                item.sites = [frame.sites[position]] if spread else list(frame.sites)
            if frame.sizes and not sized:
                size = frame.sizes[position if one_each else 0]
                if item.size is None:
                    item.size = (None, size[1]) if item.count > 1 and frame.select else size
            if frame.says_something or frame.introduces:
                item.evidence[(offset + frame.start, offset + frame.end)] = None
            item.chosen |= bool(frame.label or frame.select not in (None, "all"))

    def _forget(self, spoken_of: list[Item], frame: Frame) -> None:
        """Takes back what is denied; of what is only taken for something else, no polyp."""
        denied = [item for item in spoken_of if not frame.weak or item.vague]
        self.items = [item for item in self.items if item not in denied]
        self.focus = [item for item in self.focus if item not in denied and frame.weak]


def _share_backwards(frames: list[Frame]) -> None:
    """A noun after several counts carries its properties back to all of them."""
    first_noun = next((p for p, frame in enumerate(frames) if frame.noun), len(frames))
    for position, frame in enumerate(frames[:first_noun]):
        if frame.count is None or frame.kind != "lesion":
            continue
        later = next((other for other in frames[position + 1 :] if other.noun), None)
        if later is not None and later.count is not None:
            frame.noun = later.noun
            frame.attributes = later.attributes | frame.attributes
            frame.codes = later.codes | frame.codes
            frame.treatments = later.treatments | frame.treatments
            frame.sizes = frame.sizes or later.sizes[:1]


def _extreme(items: list[Item], frame: Frame) -> list[Item]:
    """The largest or smallest item; among items without a size, the first or last of them."""
    if not items:
        return []
    sized = [item for item in items if item.size is not None]
    if not sized or (frame.sizes and len(sized) < len(items)):
        open_items = [item for item in items if item.size is None]
        return open_items[:1] if frame.select == "largest" else open_items[-1:]
    choose = max if frame.select == "largest" else min
    return [choose(sized, key=lambda item: item.size[1] or 0 if item.size else 0)]


def _removed(item: Item) -> bool:
    return bool(set(item.treatments) - {"biopsy", "not_removed"})


def _merge(item: Item, announced: Item) -> None:
    """What an announcement said of all holds for each lesion listed after it."""
    item.attributes = item.attributes | announced.attributes
    item.codes = item.codes or dict(announced.codes)
    item.treatments = item.treatments | announced.treatments
    item.sites = item.sites or [site for site in announced.sites if site != "diffuse"]
