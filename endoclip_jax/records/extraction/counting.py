"""Which counts count lesions, and which of them open a frame."""

from __future__ import annotations

import re

from endoclip_jax.records.extraction.builder import FrameBuilder
from endoclip_jax.records.extraction.lexicon import Token
from endoclip_jax.records.extraction.quantities import Count

_NOUN_GAP = re.compile(r"\b(?:in|at|on|of|with|was|were|is|are|from|by|for|had|which|that)\b")
_ELLIPSIS_GAP = re.compile(
    r"^\s*(?:(?:was|were|is|are|located|situated|nearby|close by|alongside|there|found|"
    r"seen|noted|each|more|further|additional|other|in|at|of|the|measuring|measured|sized|"
    r"about|approximately|位于|见于|位|在|约|大小|直径|为|于|与|:)"
    r"[\s:]*)*$"
)


class CountReader(FrameBuilder):
    """Reads counts: "two polyps", "息肉两枚", "and one in the rectum", "x2"."""

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
