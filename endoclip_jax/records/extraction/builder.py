"""Where a reader stands in a sentence: its tokens, the text between them, the open frame."""

from __future__ import annotations

import re
from collections.abc import Sequence

from endoclip_jax.records.extraction.frames import Frame
from endoclip_jax.records.extraction.lexicon import Token


class FrameBuilder:
    """The settled tokens of one sentence and the frames opened so far."""

    def __init__(self, tokens: Sequence[Token], text: str):
        self.tokens = tokens
        self.text = text
        self.frames: list[Frame] = []
        self.frame: Frame | None = None
        self.pit_pattern = bool(re.search(r"(?i)kudo|\bpits?\b|开口|工藤|crypt", text))
        sizes = [token.value for token in tokens if token.kind == "size"]
        self.factor = sizes[0].factor if sizes else None

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

    def _spelled(self, position: int) -> str:
        return self.text[self.tokens[position].start : self.tokens[position].end].lower()

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
