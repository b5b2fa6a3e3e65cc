"""Where the endoscope's picture lies on the processor's screen, and what lies beside it.

The surround of the picture is black but for what identifies a person: names, dates, numbers. The
crop takes away what is beside the picture; what stands in the corners that a round or octagonal
picture leaves in its bounding box is blackened.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int, UInt8

_PROFILE_SIDE = 96  # the field is sought at this resolution, at which strokes of text are thin
_SURROUND = (10, 28)  # the surround's grey levels end between these
_SURROUND_SHARE = 0.12  # ... at this share of the frame's brightness
_BRIGHT = math.ceil(_SURROUND[1] / _SURROUND_SHARE)  # a frame as bright has the highest level
_PART_OF_FIELD = 0.25  # a lumen may cut the field in parts; a part is this share of the largest
_ONE_BLOCK = 0.75  # of the bounding box; a disc fills 0.785
_SMALLEST_FIELD = 0.1  # of the frame's area; less is a dark frame, not a field
_OUTLINE_MARGIN = 1.5  # samples round the outline that are never blackened
_OVERLAY_CONTRAST = 40  # grey levels by which an overlay outshines the surround

Box = tuple[int, int, int, int]


class Field(NamedTuple):
    """The endoscope's field: its bounding box (top, left, bottom, right), half-open, and its
    convex outline: on pixel row y of the box it spans the columns left[y] to right[y] of the box.

    `level` is the grey level at which the surround ends; `left` and `right` are None where the
    field is the whole frame.
    """

    box: Box
    level: int
    left: Float64[np.ndarray, " h"] | None
    right: Float64[np.ndarray, " h"] | None


def field_of_view(pixels: UInt8[np.ndarray, "h w 3"]) -> Box:
    """Bounding box (top, left, bottom, right) of the endoscope's field, in pixels, half-open.

    The field is the largest bright region that survives an opening wider than a stroke of text,
    so that names and dates in the surround do not widen the box. A frame without surround, or
    too dark to tell, is its own box. Exact to a 96th of the long side.
    """
    return find_field(pixels).box


def find_field(pixels: UInt8[np.ndarray, "h w 3"]) -> Field:
    """The field of a frame, with its outline."""
    height, width = pixels.shape[:2]
    step = max(1, -(-max(height, width) // _PROFILE_SIDE))
    sampled = pixels[step // 2 :: step, step // 2 :: step]
    brightness = np.maximum(sampled[..., 0], sampled[..., 1])
    np.maximum(brightness, sampled[..., 2], out=brightness)
    level = _surround_level(brightness)
    field, rows, columns = _largest_parts(_opened(brightness > level))
    whole = Field((0, 0, height, width), level, None, None)
    if len(rows) == 0:
        return whole
    top, bottom = _edges(int(rows[0]), int(rows[-1]), step, height)
    left, right = _edges(int(columns[0]), int(columns[-1]), step, width)
    if (bottom - top) * (right - left) < _SMALLEST_FIELD * height * width:
        return whole
    first, last = _outline(field[rows], rows)
    centres = (rows + 0.5) * step - 0.5
    y = np.arange(top, bottom)
    margin = _OUTLINE_MARGIN * step
    return Field(
        (top, left, bottom, right),
        level,
        np.interp(y, centres, first * step - margin) - left,
        np.interp(y, centres, (last + 1) * step - 1 + margin) - left,
    )


def cut_to_field(
    pixels: UInt8[np.ndarray, "h w 3"],
) -> tuple[UInt8[np.ndarray, "h2 w2 3"], bool]:
    """The field of view of a frame, and whether its corners had to be blackened.

    Where anything outshines the surround outside the field's outline, such as a date in a corner,
    all that lies outside the outline becomes black; otherwise no pixel is changed.
    """
    field = find_field(pixels)
    top, left, bottom, right = field.box
    cut = np.ascontiguousarray(pixels[top:bottom, left:right])
    if field.left is None or field.right is None:
        return cut, False
    width = right - left
    starts = np.minimum(np.maximum(np.ceil(field.left), 0), width).astype(np.intp)
    stops = np.minimum(np.maximum(np.floor(field.right) + 1, 0), width).astype(np.intp)
    if _brightest_beside(cut, starts, stops) <= field.level + _OVERLAY_CONTRAST:
        return cut, False
    return _blackened(cut, starts, stops), True


def _brightest_beside(
    cut: UInt8[np.ndarray, "h w 3"], starts: Int[np.ndarray, " h"], stops: Int[np.ndarray, " h"]
) -> int:
    """The brightest sample left of column starts[y] and from column stops[y] on, on each row y; 0
    if there is none.

    In memory what lies right of the field on a row and left of it on the next is one piece.
    """
    samples = cut.reshape(-1)
    height, row = len(cut), 3 * cut.shape[1]
    bounds = np.empty(2 * height + 1, np.intp)  # where in `samples` field and piece begin in turn
    rows = np.arange(0, height * row, row)
    bounds[:-1:2] = rows + 3 * starts
    bounds[1::2] = rows + 3 * stops
    bounds[-1] = len(samples)
    brightest = np.maximum.reduceat(samples, np.minimum(bounds[:-1], len(samples) - 1))[1::2]
    brightest = brightest[bounds[2::2] > bounds[1::2]]  # reduceat says nonsense of an empty piece
    before = samples[: bounds[0]]  # the first row's left, which no piece has
    return max(int(brightest.max(initial=0)), int(before.max(initial=0)))


def _blackened(
    cut: UInt8[np.ndarray, "h w 3"], starts: Int[np.ndarray, " h"], stops: Int[np.ndarray, " h"]
) -> UInt8[np.ndarray, "h w 3"]:
    """The picture, black left of column starts[y] and from column stops[y] on."""
    black = np.array(cut, order="C")
    height, width = cut.shape[:2]
    rows = black.reshape(height, 3 * width)  # samples, three a pixel
    most, least = 3 * int(starts.max()), 3 * int(stops.min())
    samples = np.arange(3 * width, dtype=np.int32)
    for part, kept in (
        (rows[:, :most], samples[:most] >= 3 * starts.astype(np.int32)[:, None]),
        (rows[:, least:], samples[least:] < 3 * stops.astype(np.int32)[:, None]),
    ):
        np.multiply(part, kept.view(np.uint8), out=part)
    return black


def _surround_level(brightness: UInt8[np.ndarray, "h w"]) -> int:
    lowest, highest = _SURROUND
    most = 0.95 * brightness.size
    if np.count_nonzero(brightness < _BRIGHT) < most:
        return highest  # as of most frames, without the whole distribution
    bright = np.bincount(brightness.reshape(-1)).cumsum().searchsorted(most)
    return int(min(max(_SURROUND_SHARE * bright, lowest), highest))


def _largest_parts(
    mask: Bool[np.ndarray, "h w"],
) -> tuple[Bool[np.ndarray, "h w"], Int[np.ndarray, " r"], Int[np.ndarray, " c"]]:
    """The mask's largest region, with regions of comparable size, and its rows and columns."""
    rows, columns = _extent(mask)
    if len(rows) == 0 or _is_one_block(mask, rows, columns):
        return mask, rows, columns
    regions, areas = _regions(mask)
    areas[0] = 0
    largest = (areas >= _PART_OF_FIELD * areas.max())[regions]
    return (largest, *_extent(largest))


def _extent(
    mask: Bool[np.ndarray, "h w"],
) -> tuple[Int[np.ndarray, " r"], Int[np.ndarray, " c"]]:
    return np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))


def _regions(mask: Bool[np.ndarray, "h w"]) -> tuple[np.ndarray, np.ndarray]:
    """(number of each pixel's region, 0 outside; area of each region): neighbours share a side.

    Runs of a row are joined to those they touch in the row above.
    """
    padded = np.zeros((mask.shape[0], mask.shape[1] + 2), np.int8)
    padded[:, 1:-1] = mask
    change = np.diff(padded, axis=1)
    row, start = np.nonzero(change == 1)
    stop = np.nonzero(change == -1)[1]
    parent = list(range(len(row)))

    def root(run: int) -> int:
        while parent[run] != run:
            parent[run] = run = parent[parent[run]]
        return run

    above = 0
    for run in range(len(row)):
        while above < run and (
            row[above] < row[run] - 1 or (row[above] < row[run] and stop[above] <= start[run])
        ):
            above += 1
        touching = above
        while touching < run and row[touching] == row[run] - 1 and start[touching] < stop[run]:
            parent[root(touching)] = root(run)
            touching += 1
    roots = np.array([root(run) for run in range(len(row))], np.intp)
    names, number = np.unique(roots, return_inverse=True)
    regions = np.zeros(mask.shape, np.intp)
    regions[mask] = np.repeat(number + 1, stop - start)
    return regions, np.bincount(regions.ravel(), minlength=len(names) + 1)


def _is_one_block(mask: Bool[np.ndarray, "h w"], rows: np.ndarray, columns: np.ndarray) -> bool:
    """Whether the mask fills most of its bounding box, so that nothing lies apart from it."""
    height, width = int(rows[-1] + 1 - rows[0]), int(columns[-1] + 1 - columns[0])
    gapless = len(rows) == height and len(columns) == width
    return gapless and int(np.count_nonzero(mask)) >= _ONE_BLOCK * height * width


def _opened(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Opening by a square of 3, for which the frame's edge is no edge.

    On the mask as one line, in which one cell of padding parts the rows: a neighbour is a shift.
    """
    height, width = mask.shape
    row = width + 1
    padded = np.empty((height + 2, row), bool)
    padded[1:-1, :-1] = mask
    line = padded.reshape(-1)
    for grow, beyond in ((np.logical_and, True), (np.logical_or, False)):
        for shift in (1, row):
            padded[0] = padded[-1] = padded[:, -1] = beyond
            grown = grow(line[shift:], line[:-shift])
            grow(grown[shift:], grown[:-shift], out=line[shift:-shift])
    return np.ascontiguousarray(padded[1:-1, :-1])


def _edges(first: int, last: int, step: int, extent: int) -> tuple[int, int]:
    """Pixel range of the sampled rows first..last; the frame's edge within one step of it."""
    start, stop = first * step, (last + 1) * step
    return (0 if start <= step else start), (extent if stop >= extent - step else stop)


def _outline(
    field: Bool[np.ndarray, "n w"], rows: np.ndarray
) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """First and last column of the field's convex hull on each of its rows, in samples."""
    first = field.argmax(axis=1)
    last = field.shape[1] - 1 - field[:, ::-1].argmax(axis=1)
    return _lower_hull(rows, first), -_lower_hull(rows, -last)


def _lower_hull(x: Int[np.ndarray, " n"], y: Int[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """The largest convex function below the points (x, y), x ascending, at every x."""
    if len(x) < 3:
        return y.astype(np.float64)
    rise, run = y[1:] - y[:-1], x[1:] - x[:-1]
    bends = np.flatnonzero(rise[1:] * run[:-1] > rise[:-1] * run[1:]) + 1  # all others lie above
    kept_x, kept_y = [int(x[0])], [int(y[0])]
    for new_x, new_y in zip(
        (*x[bends].tolist(), int(x[-1])), (*y[bends].tolist(), int(y[-1])), strict=True
    ):
        while len(kept_x) > 1:
            from_x, from_y = kept_x[-2], kept_y[-2]
            if (kept_y[-1] - from_y) * (new_x - from_x) < (new_y - from_y) * (kept_x[-1] - from_x):
                break
            kept_x.pop()
            kept_y.pop()
        kept_x.append(new_x)
        kept_y.append(new_y)
    return np.interp(x, kept_x, kept_y)
