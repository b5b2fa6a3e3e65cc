"""Text files in the encodings that hospitals use."""

from __future__ import annotations

import codecs
import re

_NO_TEXT = re.compile("[\x00-\x08\x0e-\x1f\ufffe\uffff]")
_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def decoded_text(raw: bytes) -> str | None:
    """The text of a file's bytes, its encoding guessed; None if they are no text.

    UTF-16 is known by its mark or, without one, by the zero bytes of its Latin characters; what is
    not valid UTF-8 (with or without a mark) is read as GB18030, of which GBK and GB2312 are parts.
    """
    for encoding in _candidates(raw):
        try:
            text = raw.decode(encoding)
        except UnicodeDecodeError:
            continue
        no_text = _NO_TEXT.search(text) if encoding.startswith("utf-16") else "\0" in text
        return None if no_text else text
    return None


def _candidates(raw: bytes) -> tuple[str, ...]:
    if raw.startswith(_UTF16_MARKS):
        return ("utf-16",)
    zeros = raw[0::2].count(0), raw[1::2].count(0)
    if max(zeros) > len(raw) // 16 and len(raw) % 2 == 0:
        return ("utf-16-be",) if zeros[0] > zeros[1] else ("utf-16-le",)
    return ("utf-8-sig", "gb18030")
