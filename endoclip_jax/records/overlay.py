"""Whether a stored frame still shows writing: what no crop can take away lies on the picture."""

from __future__ import annotations

import functools

import numpy as np
from jaxtyping import Bool, Float32, UInt8

_INK = 60  # grey levels of blue by which a stroke outshines the darkest within three pixels
_WINDOW = 40  # px of a line that are looked at together
_REACH = 7  # px of a row that are looked at to tell that a stroke begins, less one
_STROKES = 5  # in a window on one row of a line of writing
_LINE_ROWS = (4, 18)  # px, height of a line of writing; `_has_line` looks for four first
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
    begins = _stroke_begins(pixels)
    if np.count_nonzero(begins) < _STROKES * _LINE_ROWS[0]:  # as of many frames
        return False
    return _has_line(_counts(begins, pixels.shape[1] - _REACH))


def _stroke_begins(pixels: UInt8[np.ndarray, "h w 3"]) -> Bool[np.ndarray, "h w2"]:
    """Whether a bright thin stroke begins at pixel x + 4 of row y: bool[y, x].

    Looked for on all rows as one line, which is much faster than row by row; what is found across
    the ends of rows is taken out again. The columns are padded to a multiple of eight.
    """
    height, width = pixels.shape[:2]
    blue = np.zeros((height, -(-width // 8) * 8), np.uint8)
    blue[:, :width] = pixels[:, :, 2]
    line = blue.reshape(-1)
    pairs = np.minimum(line[1:], line[:-1])
    fours = np.minimum(pairs[2:], pairs[:-2])
    darkest_near = np.minimum(fours[3:], fours[:-3])  # of seven pixels, the middle one too
    stroke = line[3:-3] - darkest_near > _INK
    begins = np.zeros(blue.shape, bool)
    np.greater(stroke[1:], stroke[:-1], out=begins.reshape(-1)[: len(stroke) - 1])
    begins[:, width - _REACH :] = False
    return begins


def _counts(begins: Bool[np.ndarray, "h w"], width: int) -> Float32[np.ndarray, "h n"]:
    """Strokes that begin in each of the half-overlapping windows of each row, whose first `width`
    columns count."""
    eights = np.packbits(begins.reshape(-1)).reshape(len(begins), -1)
    fours = np.concatenate([np.bitwise_count(eights >> 4), np.bitwise_count(eights & 15)], axis=1)
    return fours.astype(np.float32) @ _windows(width, eights.shape[1])


@functools.cache
def _windows(width: int, eights: int) -> Float32[np.ndarray, "w n"]:
    """Columns of ones, each over the fours of pixels of one window: first those that begin an
    eight, then those that end one."""
    eight = 8 * np.arange(eights)
    pixel = np.concatenate([eight, eight + 4])[:, None]
    first = np.arange(0, width - _WINDOW // 2, _WINDOW // 2)
    return ((pixel >= first) & (pixel < first + _WINDOW)).astype(np.float32)


def _has_line(counts: Float32[np.ndarray, "h n"]) -> bool:
    """Whether in a window rows of writing follow one another, with clear rows above and below."""
    height, number = counts.shape
    is_written = counts >= _STROKES
    pairs = is_written[1:] & is_written[:-1]
    if not (pairs[2:] & pairs[:-2]).any():  # as of many frames: nowhere are there _LINE_ROWS[0]
        return False
    written = np.zeros((number, height + 2), np.int8)  # window after window, parted by a zero
    written[:, 1:-1] = is_written.T
    line = written.reshape(-1)
    window, first = np.divmod(np.flatnonzero(line[1:] > line[:-1]), height + 2)
    stop = np.flatnonzero(line[1:] < line[:-1]) % (height + 2)
    is_line = (stop - first >= _LINE_ROWS[0]) & (stop - first <= _LINE_ROWS[1])
    window, first, stop = window[is_line], first[is_line], stop[is_line]
    if len(first) == 0:
        return False
    near = np.arange(_CLEAR_ROWS)[:, None]
    above = counts[np.maximum(first - 1 - near, 0), window].min(axis=0) <= _CLEAR_STROKES
    below = counts[np.minimum(stop + near, height - 1), window].min(axis=0) <= _CLEAR_STROKES
    return bool(np.any((above | (first == 0)) & (below | (stop == height))))
