"""Sites and distances: a run of them is read at once, for what follows says whose it is."""

from __future__ import annotations

import re

from endoclip_jax.records.extraction.counting import CountReader
from endoclip_jax.records.extraction.frames import segments_between
from endoclip_jax.records.extraction.lexicon import Token

_RANGE_GAP = re.compile(r"\s*(?:to|through|up to|down to|until|and|至|到|~|-)\s*(?:the\s*)?$")
_SITE_GAP = re.compile(
    r"[\s-]*(?:(?:in|at|the|both|colon|distal|proximal|mid|middle|upper|lower|from|between|one|each|"
    r"respectively|下段|上段|中段|近段|远段|部)[\s-]*)*$"
)


class PlaceReader(CountReader):
    """Reads where lesions are, and which names of places are only landmarks."""

    def _on_site(self, position: int, token: Token) -> int:
        end, sites, counts, is_range, distances = self._site_run(position)
        if end < len(self.tokens) and self._spelled(end) == "对侧":
            return end + 1
        if self._refers(position) and ((self.frame and self.frame.sites) or self._site_ahead(end)):
            return end
        lead = self._leads(end)
        frame = self.frame
        if lead and frame is not None and (frame.opened or (frame.sites and frame.says_something)):
            frame = self._open(token)
        frame = self._current(self.tokens[end - 1]) if frame is None or not lead else frame
        frame.start = min(frame.start, token.start)
        frame.end = max(frame.end, self.tokens[end - 1].end)
        if frame is self.frame and lead == "heading" and self._nothing_before(position):
            frame.heading = True
        frame.lead_sites |= not frame.sites and not frame.opened
        frame.sites += [site for site in sites if site not in frame.sites]
        frame.distances += distances
        frame.site_counts |= counts
        frame.site_range |= is_range
        return end

    def _site_run(self, position: int) -> tuple[int, list[str], dict[str, int], bool, list[float]]:
        """(end, sites, lesions per site, whether a range, distances) of sites told in a row."""
        tokens = self.tokens
        distances: list[float] = []
        sites, counts, is_range = [tokens[position].value], {}, False
        index = position + 1
        while index < len(tokens):
            if tokens[index].kind == "suffix_count":
                counts[sites[-1]] = tokens[index].value.number
                index += 1
                continue
            if self._landmark(index):
                index += 2
                continue
            if tokens[index].kind == "distance" and self._goes_on(index + 1, bool(distances)):
                distances += tokens[index].value  # "降结肠距肛40cm、乙状结肠距肛20cm"
                index += 1
                continue
            joint = index
            while joint < len(tokens) and (
                tokens[joint].kind == "separator"
                and tokens[joint].value in ("and", "、", "or", ",")
            ):
                joint += 1
            separated = joint > index
            if separated and [token.kind for token in tokens[joint : joint + 2]] == [
                "distance",
                "site",
            ]:
                distances += tokens[joint].value  # "距肛40cm降结肠、距肛20cm乙状结肠"
                sites.append(tokens[joint + 1].value)
                index = joint + 2
                continue
            article = joint
            joint += joint < len(tokens) and tokens[joint].kind == "definite"
            if joint >= len(tokens) or tokens[joint].kind != "site" or joint - index > 3:
                break
            gap = self.text[tokens[article - 1].end : tokens[joint].start]
            if not separated and _RANGE_GAP.fullmatch(gap) and gap.strip():
                sites += segments_between(sites[-1], tokens[joint].value)
                is_range = True
            elif _SITE_GAP.fullmatch(gap) and (separated or gap.strip() == ""):
                only_comma = all(tokens[k].value == "," for k in range(index, article))
                if separated and only_comma and not self._and_follows(joint):
                    break
                sites.append(tokens[joint].value)
            else:
                break
            index = joint + 1
        return index, sites, counts, is_range, distances

    def _goes_on(self, position: int, begun: bool) -> bool:
        """Whether sites with distances go on here, or just ended before "each"."""
        kinds = [token.kind for token in self.tokens[position : position + 3]]
        return kinds == ["separator", "site", "distance"] or (begun and kinds[:1] == ["each"])

    def _landmark(self, position: int) -> bool:
        """Whether a run of sites passes over what a site is near: "横结肠近脾曲、降结肠"."""
        tokens = self.tokens
        if position + 1 >= len(tokens) or tokens[position].kind != "reference":
            return False
        gaps = self._gap(position).strip() + self._gap(position + 1).strip()
        return tokens[position + 1].kind == "site" and not gaps

    def _nothing_before(self, position: int) -> bool:
        return all(token.kind in ("separator", "label") for token in self.tokens[:position])

    def _and_follows(self, position: int) -> bool:
        """Whether a comma list of sites goes on to "and" another site."""
        tokens = self.tokens
        index = position + 1
        while index + 1 < len(tokens) and tokens[index].kind in ("separator", "suffix_count"):
            if tokens[index].value == "and" and tokens[index + 1].kind == "site":
                return True
            if tokens[index].kind == "separator" and tokens[index + 1].kind == "site":
                index += 2
                continue
            index += 1
        return False

    def _refers(self, position: int) -> bool:
        """Whether the site is only a landmark: "just above the ileocaecal valve"."""
        while position and self.tokens[position - 1].kind == "definite":
            position -= 1
        if position == 0 or self.tokens[position - 1].kind != "reference":
            return False
        reference = self.tokens[position - 1]
        taken = position > 1 and self.tokens[position - 2].kind in ("count", "lesion", "treatment")
        if taken and self.text[reference.start : reference.end].lower() == "from":
            return False  # "one from the caecum"
        return self._gap(position).strip() in ("", "to", "of")

    def _site_ahead(self, position: int) -> bool:
        return any(token.kind == "site" for token in self.tokens[position:])

    def _site_next(self, position: int) -> bool:
        ahead = self.tokens[position : position + 2]
        kinds = [token.kind for token in ahead]
        return kinds[:1] == ["site"] or kinds == ["definite", "site"]

    def _leads(self, position: int) -> str:
        """ "heading", "lesion" or "": whether what follows a site run opens a lesion there."""
        for index in range(position, len(self.tokens)):
            token = self.tokens[index]
            if index == position and self._gap(position).strip() == "-":
                return "heading"
            if token.kind == "separator":
                if token.value in (":", "|") and index == position:
                    return "heading"
                return ""
            if token.kind in ("lesion", "weak_lesion", "other", "lst"):
                return "lesion"
            if token.kind == "count" and self._counts_lesions(index):
                return "lesion"
            if token.kind in ("stop", "negation", "topic", "select", "treatment", "history"):
                return ""
        return ""

    def _on_distance(self, position: int, token: Token) -> None:
        if self._leads(position + 1) and self.frame is not None and self.frame.opened:
            self._open(token)
        self._current(token).distances.extend(token.value)
