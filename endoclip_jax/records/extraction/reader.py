"""From the tokens of a sentence to frames: a small grammar read from left to right.

A lesion noun, a count, a selector ("the larger", "both"), a label ("#2") or a leading site opens a
frame; everything else fills the open one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from endoclip_jax.records.extraction.frames import Frame, segments_between
from endoclip_jax.records.extraction.lexicon import Token
from endoclip_jax.records.extraction.quantities import Count, Size

_RANGE_GAP = re.compile(r"\s*(?:to|through|up to|down to|until|and|至|到|~|-)\s*(?:the\s*)?$")
_SITE_GAP = re.compile(
    r"[\s-]*(?:(?:in|at|the|both|colon|distal|proximal|mid|middle|upper|lower|from|between|one|each|"
    r"respectively|下段|上段|中段|近段|远段|部)[\s-]*)*$"
)
_NOUN_GAP = re.compile(r"\b(?:in|at|on|of|with|was|were|is|are|from|by|for|had|which|that)\b")
_ELLIPSIS_GAP = re.compile(
    r"^\s*(?:(?:was|were|is|are|located|situated|nearby|close by|alongside|there|found|"
    r"seen|noted|each|more|further|additional|other|in|at|of|the|measuring|measured|sized|about|approximately|位于|见于|位|在|约|大小|直径|为|于|与|:)"
    r"[\s:]*)*$"
)
# "It was 25 mm, laterally spreading" describes what the sentence before brought up.
_PREDICATE = re.compile(r"(?i)\s*(?:it|this|they|these)\s+(?:was|is|were|are|measured|had)\b")
_NEARBY = re.compile(
    r"(?i)\b(?:beside|next to|near|adjacent to|alongside|close to)\s+"
    r"(?:it|this|the (?:lesion|former))\b|\bnearby\b|\bsame (?:segment|site|place|area)\b|"
    r"其旁|旁边|同部位|同一部位"
)
# What a lesion is taken for: "considered a hypertrophied anal papilla".
_TAKEN_FOR = re.compile(
    r"(?i)(?:考虑为?|符合|诊断为|(?:consistent|in keeping|compatible) with|suggest\w*(?: of)?|"
    r"likely|probably|represent\w*|consider\w*(?: as)?)\s*(?:an?\s+|the\s+)?$"
)
_PLURAL = re.compile(r"(?:polyps|lesions|adenomas|nodules|masses|tumou?rs|growths|neoplasms)$")


class Reader:
    """Reads the settled tokens of one sentence into frames."""

    def __init__(self, tokens: Sequence[Token], text: str):
        self.tokens = tokens
        self.text = text
        self.frames: list[Frame] = []
        self.frame: Frame | None = None
        self.pit_pattern = bool(re.search(r"(?i)kudo|\bpits?\b|开口|工藤|crypt", text))
        sizes = [token.value for token in tokens if token.kind == "size"]
        self.factor = sizes[0].factor if sizes else None

    def read(self) -> list[Frame]:
        """The frames of the sentence in order."""
        position = 0
        while position < len(self.tokens):
            token = self.tokens[position]
            handler = getattr(self, f"_on_{token.kind}", None)
            position = (handler(position, token) if handler else None) or position + 1
        nearby = bool(_NEARBY.search(self.text))
        for frame in self.frames:
            self._stretch(frame)
            frame.nearby = nearby and not frame.sites
            frame.clause = sum(
                token.value == ";" and token.start < frame.end for token in self.tokens
            )
        return self.frames

    def _stretch(self, frame: Frame) -> None:
        """Evidence goes from the sentence's start, or the frame's, to the end of its phrase."""
        if frame is self.frames[0]:
            frame.start = 0
        for token in self.tokens:
            if token.start >= frame.end:
                if token.kind == "separator" and token.value not in ("and", "or"):
                    frame.end = token.start
                    return
                if token.kind in ("treatment", "count", "lesion", "select", "negation"):
                    return
        frame.end = len(self.text)

    def _open(self, token: Token) -> Frame:
        self.frame = Frame(token.start, token.end)
        self.frames.append(self.frame)
        return self.frame

    def _current(self, token: Token) -> Frame:
        """The open frame, stretched to the token."""
        frame = self.frame or self._open(token)
        frame.end = max(frame.end, token.end)
        return frame

    def _fresh(self, token: Token) -> Frame:
        """The open frame if it names nothing yet, else a new one."""
        if self.frame is None or self.frame.opened:
            return self._open(token)
        return self._current(token)

    def _gap(self, position: int) -> str:
        """Text between a token and the one before it."""
        if position == 0:
            return self.text[: self.tokens[0].start]
        return self.text[self.tokens[position - 1].end : self.tokens[position].start]

    # Sites: a run of sites is read at once, because what follows the run says whose it is.

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

    def _spelled(self, position: int) -> str:
        return self.text[self.tokens[position].start : self.tokens[position].end].lower()

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

    # Counts and nouns open lesions.

    def _on_count(self, position: int, token: Token) -> None:
        frame = self.frame
        counted = self._counts_lesions(position)
        if not counted:
            return
        if counted == "definite":
            self._fresh(token).definite = True
            return
        settles = not (frame and frame.noun) or (token.value.approximate and not frame.sizes)
        if frame and frame.count and frame.count.approximate and settles and not frame.select:
            # "several (7-8)", "散在约4-5枚": the number says how many several are.
            frame.count = Count(token.value.number, True)
            self._current(token)
            return
        if frame and frame.noun and not frame.count and not frame.select and counted == "suffix":
            frame.count = token.value
            self._current(token)
            return
        if self._apposed(position):
            return
        self._fresh(token).count = token.value

    def _apposed(self, position: int) -> bool:
        """Whether "a" names anew what stands before a colon: "The lesion was seen: a 3 cm ..."."""
        frame, token = self.frame, self.tokens[position]
        if frame is None or not frame.noun or frame.plural or frame.sizes or position == 0:
            return False
        singular = frame.count in (None, Count(1)) and token.value == Count(1)
        return singular and self.tokens[position - 1].value == ":"

    def _counts_lesions(self, position: int) -> str:
        """How a count belongs to lesions: "noun", "suffix", "ellipsis", "definite" or ""."""
        tokens, token = self.tokens, self.tokens[position]
        before = tokens[position - 1] if position else None
        if before is not None and before.kind == "definite" and not self._gap(position).strip():
            return "definite" if token.value.number == 1 else ""
        if before is not None and before.kind == "treatment" and not token.value.approximate:
            return ""
        if before is not None and before.kind == "other" and not self._gap(position).strip():
            return ""  # "黏膜下隆起一处"
        if self.text[token.start : token.end].lower() == "one" and self._is_definite(position):
            return "definite"
        if (
            before is not None
            and before.kind == "lesion"
            and re.fullmatch(r"\s*共?计?\s*", self._gap(position))
            and token.value.number >= 1
            and self.text[token.end - 1] > "一"
        ):
            return "suffix"
        article = self.text[token.start : token.end].lower() in ("a", "an", "some", "few", "a few")
        index, crossed = position + 1, False
        while index < len(tokens):
            following = tokens[index]
            gap = self._gap(index)
            if following.kind in ("lesion", "weak_lesion", "lst"):
                return "" if _NOUN_GAP.search(gap) and article else "noun"
            if following.kind in ("other", "background", "negated", "past", "treatment", "topic"):
                if crossed:
                    break
                return ""
            crossed = crossed or following.kind == "separator"
            if following.kind == "count" and not following.value.approximate:
                break
            if following.kind not in (
                "attribute",
                "size",
                "code",
                "kudo",
                "lst",
                "site",
                "adjective",
                "aside",
                "separator",
                "count",
                "normal",
                "select",
                "history",
                "seen",
            ) or (
                following.kind == "separator"
                and following.value not in (",", "and", "(", ")", "、")
            ):
                break
            if _NOUN_GAP.search(gap):
                break
            index += 1
        return self._ellipsis(position, article)

    def _ellipsis(self, position: int, article: bool) -> str:
        """ "ellipsis" when the noun is left out: "and one in the rectum", "一枚位于直肠"."""
        if position + 1 >= len(self.tokens):
            return ""
        following = self.tokens[position + 1]
        gap = self._gap(position + 1)
        if following.kind == "definite" and position + 2 < len(self.tokens):
            gap += self._gap(position + 2)
            following = self.tokens[position + 2]
        if article:
            return "ellipsis" if following.kind == "size" and not gap.strip() else ""
        if self._noun_comes_last(position):
            return "ellipsis"
        if following.kind == "separator" and following.value in ("(", ",", ":") and not gap.strip():
            after = self.tokens[position + 2] if position + 2 < len(self.tokens) else None
            kinds = ["size", "site", "lst", "code"]
            if self.text[self.tokens[position].end - 1] in "枚个颗粒":
                kinds += ["each", "select", "attribute"]
            named = after is not None and after.kind in kinds
            return "ellipsis" if named else ""
        if self.tokens[position].value.approximate and following.kind != "size":
            return ""
        if following.kind not in (
            "site",
            "size",
            "attribute",
            "code",
            "lst",
            "distance",
            "reference",
        ):
            return ""
        return "ellipsis" if _ELLIPSIS_GAP.fullmatch(gap) else ""

    def _noun_comes_last(self, position: int) -> bool:
        """ "升结肠见两枚、降结肠见一枚、直肠见两枚息肉": the noun follows the last count."""
        following = self.tokens[position + 1]
        listed = following.kind == "separator" and following.value in ("、", ",", "and")
        counted = self.text[self.tokens[position].end - 1] in "枚个颗粒处"
        ahead = [token.kind for token in self.tokens[position + 1 :]]
        return listed and counted and "lesion" in ahead and "count" in ahead

    def _on_suffix_count(self, position: int, token: Token) -> None:
        frame = self.frame
        nouns = [other.kind for other in self.tokens[:position] if other.kind != "separator"]
        if nouns and nouns[-1] == "treatment":  # "biopsied (x3)"
            return
        if frame is None or frame.count is not None or frame.select:
            return
        sized = any(other.kind == "size" for other in self.tokens[position:])
        multiplied = self.text[token.start] in "xX×"  # "Caecum: x1 4 mm"
        if frame.noun or (frame.lead_sites and sized and multiplied):
            frame.count = token.value
            self._current(token)

    def _on_lesion(self, position: int, token: Token) -> None:
        definite = self._is_definite(position)
        frame = self.frame
        if frame is not None and frame.noun and not definite:
            return  # apposition: "a lesion ..., a laterally spreading tumour"
        if definite and frame is not None and frame.noun:
            frame = self._open(token)
        frame = self._current(token)
        if frame.noun is None:
            frame.noun = token.value
            if token.value == "mass" and not definite:
                frame.attributes[("gross_form", "mass")] = None
        frame.plural = frame.plural or bool(
            _PLURAL.search(self.text[token.start : token.end].lower())
        )
        if definite and not frame.count and not frame.select:
            frame.definite = True

    def _on_weak_lesion(self, position: int, token: Token) -> None:
        self._current(token).weak = True
        self._on_lesion(position, token)

    def _is_definite(self, position: int) -> bool:
        for index in range(position - 1, -1, -1):
            token = self.tokens[index]
            if token.kind == "definite":
                # "in the sigmoid colon polyps": the article belongs to the site.
                site_next = self.tokens[index + 1].kind == "site"
                return not (site_next and re.search(r"\b(?:in|at|of)\s*$", self._gap(index)))
            if token.kind not in ("attribute", "size", "site", "code", "lst", "adjective", "aside"):
                return False
        return False

    def _on_element(self, position: int, token: Token) -> None:
        self._open(token).count = Count(1)

    def _on_select(self, position: int, token: Token) -> None:
        before = self.tokens[position - 1] if position else None
        text = self.text[token.start : token.end].lower()
        if text.startswith("each") and before is not None and before.kind in ("size", "count"):
            return
        if text == "each" and self.frame and self.frame.count and self._site_next(position + 1):
            self.frame.each = True  # "one polyp each in the caecum and the rectum"
            return
        if self.frame is not None and not self.frame.opened and not self.frame.says_something:
            frame = self._current(token)
        else:
            frame = self._open(token)
        frame.select = token.value
        frame.both = text.startswith("both") or text in ("二者", "两者", "两枚均")

    def _on_label(self, position: int, token: Token) -> None:
        frame = self._fresh(token)
        frame.label = token.value
        if re.search(r"polyp|lesion|息肉|病", self.text[token.start : token.end].lower()):
            frame.noun = "polyp"

    def _on_other(self, position: int, token: Token) -> None:
        if _TAKEN_FOR.search(self.text[: token.start]) and self.frame and self.frame.noun:
            frame = self._open(token)
            frame.kind, frame.weak = "denial", True
            return
        self._fresh(token).kind = "other"

    def _on_negated(self, position: int, token: Token) -> None:
        if token.value not in ("lesion", "weak_lesion") or (
            self.frame is not None and self.frame.noun
        ):
            return
        cue = self.text[: token.start].lower()
        if re.search(r"\bnot\s+(?:true\s+|real\s+)?$|(?:并非|非|不是)\S{0,2}$", cue):
            self._open(token).kind = "denial"

    def _on_each(self, position: int, token: Token) -> None:
        frame = self._current(token)
        said = self.text[token.start : token.end].lower()
        # "两枚,分别位于" shares out what was counted; "各见一枚" counts at each place.
        frame.each |= not frame.opened or said.startswith(("各", "at each", "in each"))

    # Everything else fills slots.

    def _on_size(self, position: int, token: Token) -> None:
        if self._stands_for_place(position):
            self._current(token).distances.append((token.value.spans[0][0] or 0) / 10)
            return
        frame = self.frame
        if frame is not None and frame.noun and self._sizes_another(position):
            self._open(token)
        self._current(token).sizes.extend(token.value.spans)

    def _stands_for_place(self, position: int) -> bool:
        """ "Rectum, 5-10 cm: ...": how far up the bowel, not how large."""
        tokens = self.tokens
        headed = position + 1 < len(tokens) and tokens[position + 1].value == ":"
        placed = any(token.kind == "site" for token in tokens[:position])
        only = all(token.kind in ("site", "separator", "label") for token in tokens[:position])
        return headed and placed and only and tokens[position].value.factor == 10

    def _sizes_another(self, position: int) -> bool:
        """Whether the noun after this size is another lesion: "...; 6 mm polyp in the rectum"."""
        before = self.tokens[position - 1] if position else None
        apart = before is not None and before.value == ";"
        if not (apart or (self.frame and self.frame.sizes)):
            return False
        for token in self.tokens[position + 1 :]:
            if token.kind == "lesion":
                return True
            if token.kind not in ("attribute", "code", "site", "adjective"):
                return False
        return False

    def _on_bare_size(self, position: int, token: Token) -> None:
        frame = self._current(token)
        size: Size = token.value
        if self.factor is None:
            frame.bare_size = True
            return
        frame.sizes.extend(
            (None if low is None else low * self.factor, high * self.factor)
            for low, high in size.spans
        )

    def _on_distance(self, position: int, token: Token) -> None:
        if self._leads(position + 1) and self.frame is not None and self.frame.opened:
            self._open(token)
        self._current(token).distances.extend(token.value)

    def _on_attribute(self, position: int, token: Token) -> None:
        self._current(token).attributes[token.value] = None

    def _on_lst(self, position: int, token: Token) -> None:
        frame = self._current(token)
        measured = any(other.kind in ("size", "site") for other in self.tokens)
        measured &= not _PREDICATE.match(self.text)
        if frame.noun is None and not frame.select and (frame.count or measured):
            frame.noun = "lst"
            frame.definite = frame.definite or self._is_definite(position)
        for value in token.value:
            frame.attributes[("lst_growth", value)] = None

    def _on_code(self, position: int, token: Token) -> None:
        self._current(token).codes[token.value] = None

    def _on_kudo(self, position: int, token: Token) -> None:
        if not self.pit_pattern:
            return
        frame = self._current(token)
        for value in token.value:
            if value == "III":
                frame.attributes[("microstructure", "regular_neoplastic_pattern")] = None
            elif value == "V":
                frame.attributes[("microstructure", "irregular_pattern")] = None
            else:
                frame.codes[("kudo", value)] = None

    def _on_treatment(self, position: int, token: Token) -> None:
        frame = self.frame or self._open(token)
        frame.treatments[token.value] = None
