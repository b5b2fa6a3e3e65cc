"""From the tokens of a sentence to frames: a small grammar read from left to right.

A lesion noun, a count, a selector ("the larger", "both"), a label ("#2") or a leading site opens a
frame; everything else fills the open one.
"""

from __future__ import annotations

import re

from endoclip_jax.records.extraction.frames import Frame
from endoclip_jax.records.extraction.lexicon import Token
from endoclip_jax.records.extraction.places import PlaceReader
from endoclip_jax.records.extraction.quantities import Count, Size

# "It was 25 mm, laterally spreading" describes what the sentence before brought up.
_PREDICATE = re.compile(r"(?i)\s*(?:it|this|they|these)\s+(?:was|is|were|are|measured|had)\b")
_ELSEWHERE = re.compile(r"[口肛]侧|[上下]方|\b(?:proximal|distal|oral|anal) to\b")
_WERE = re.compile(r"\b(?:were|are)\b")
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


class Reader(PlaceReader):
    """Reads the settled tokens of one sentence into frames."""

    def read(self) -> list[Frame]:
        """The frames of the sentence in order."""
        position = 0
        while position < len(self.tokens):
            token = self.tokens[position]
            handler = getattr(self, f"_on_{token.kind}", None)
            position = (handler(position, token) if handler else None) or position + 1
        self._share_place()
        nearby = bool(_NEARBY.search(self.text))
        for frame in self.frames:
            self._stretch(frame)
            frame.nearby = nearby and not frame.sites
            frame.clause = sum(
                token.value == ";" and token.start < frame.end for token in self.tokens
            )
        return self.frames

    def _share_place(self) -> None:
        """ "A 3 mm polyp and an 8 mm polyp were seen in the rectum": both are there."""
        for one, other in zip(self.frames, self.frames[1:], strict=False):
            placed = bool(other.sites) and not other.lead_sites
            one_each = one.count in (None, Count(1)) and not one.plural and bool(other.noun)
            alone = bool(one.noun) and not (one.sites or one.distances) and one_each
            other.elsewhere = bool(_ELSEWHERE.search(self.text[one.end : other.end]))
            between = self.text[one.end : other.end].lower()
            if alone and placed and one.introduces and other.introduces and _WERE.search(between):
                one.sites = list(other.sites)

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
        if _TAKEN_FOR.search(self.text[: token.start]) and self.frame and self.frame.introduces:
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
