"""Whether a stored frame still shows writing: what no crop can take away lies on the picture."""

from __future__ import annotations

import functools

import numpy as np
from jaxtyping import Bool, Float32, UInt8

_INK = 60  # grey levels of blue by which a stroke outshines the darkest within three pixels
_WINDOW = 40  # px of a line that are looked at together
_STROKES = 5  # in a window on one row of a line of writing
_LINE_ROWS = (4, 18)  # px, height of a line of writing
_CLEAR_ROWS = 3  # above a line and below it, of which the clearest has
_CLEAR_STROKES = 1  # at most


def looks_like_text(pixels: UInt8[np.ndarray, "h w 3"]) -> bool:
    """Whether a line of bright writing stands somewhere on the frame.

    A line of writing is a band of rows with many thin bright strokes side by side that begins and
    ends abruptly; reflections on wet mucosa are as bright and thin, but in no such band. Meant to
    be counted and shown to a person: it misses faint, large and dark writing.
    """
    if min(pixels.shape[:2]) < _WINDOW:
        return False
    blue = np.ascontiguousarray(pixels[:, :, 2])
    pairs = np.minimum(blue[:, 1:], blue[:, :-1])
    fours = np.minimum(pairs[:, 2:], pairs[:, :-2])
    darkest_near = np.minimum(fours[:, 3:], fours[:, :-3])  # of seven pixels, the middle one too
    stroke = blue[:, 3:-3] - darkest_near > _INK
    begins = stroke[:, 1:] & ~stroke[:, :-1]
    rows = _rows_with_strokes(begins)
    if rows is None:
        return False
    counts = begins[rows].astype(np.float32) @ _windows(begins.shape[1])
    written = counts >= _STROKES
    return any(_has_line(counts[:, i], written[:, i]) for i in np.flatnonzero(written.any(axis=0)))


def _rows_with_strokes(begins: Bool[np.ndarray, "h w"]) -> slice | None:
    """The rows among which a line could be, with the clear ones round it; None if there are none.

    A cheap look before the close one: most frames have too few strokes on too few rows.
    """
    if np.count_nonzero(begins) < _STROKES * _LINE_ROWS[0]:
        return None
    strokes = np.bitwise_count(np.packbits(begins, axis=1)).sum(axis=1, dtype=np.int32)
    many = strokes >= _STROKES
    together = many[3:] & many[2:-1] & many[1:-2] & many[:-3]  # _LINE_ROWS[0] rows
    first = np.flatnonzero(together)
    if len(first) == 0:
        return None
    return slice(max(int(first[0]) - _CLEAR_ROWS, 0), int(first[-1]) + _LINE_ROWS[0] + _CLEAR_ROWS)


@functools.cache
def _windows(width: int) -> Float32[np.ndarray, "w n"]:
    """Columns of ones, each over one of the half-overlapping windows of a row."""
    first = np.arange(0, width - _WINDOW // 2, _WINDOW // 2)
    column = np.arange(width)[:, None]
    return ((column >= first) & (column < first + _WINDOW)).astype(np.float32)


def _has_line(counts: np.ndarray, written: np.ndarray) -> bool:
    """Whether rows of writing follow one another, with clear rows above and below."""
    change = np.diff(np.concatenate(([0], written.view(np.int8), [0])))
    for first, stop in zip(np.flatnonzero(change == 1), np.flatnonzero(change == -1), strict=True):
        if not _LINE_ROWS[0] <= stop - first <= _LINE_ROWS[1]:
            continue
        above, below = (
            counts[max(first - _CLEAR_ROWS, 0) : first],
            counts[stop : stop + _CLEAR_ROWS],
        )
        if all(len(side) == 0 or side.min() <= _CLEAR_STROKES for side in (above, below)):
            return True
    return False
