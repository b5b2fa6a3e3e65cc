"""Where the endoscope's picture lies on the processor's screen, and what lies beside it.

The surround of the picture is black but for what identifies a person: names, dates, numbers. The
crop takes away what is beside the picture; what stands in the corners that a round or octagonal
picture leaves in its bounding box is blackened.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, UInt8

_PROFILE_SIDE = 96  # the field is sought at this resolution, at which strokes of text are thin
_SURROUND = (10, 28)  # the surround's grey levels end between these
_SURROUND_SHARE = 0.12  # ... at this share of the frame's brightness
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
    red, green, blue = np.moveaxis(pixels[step // 2 :: step, step // 2 :: step], 2, 0)
    brightness = np.maximum(np.maximum(red, green), blue)
    level = _surround_level(brightness)
    field = _largest_parts(_opened(brightness > level))
    whole = Field((0, 0, height, width), level, None, None)
    if not field.any():
        return whole
    rows, columns = np.flatnonzero(field.any(axis=1)), np.flatnonzero(field.any(axis=0))
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
    cut = pixels[top:bottom, left:right]
    beside = _beside(field)
    threshold = field.level + _OVERLAY_CONTRAST
    rows = pixels[top:bottom].reshape(bottom - top, -1)[:, 3 * left : 3 * right]
    if not any(np.any((rows[:, samples] > threshold) & mask) for samples, mask in beside):
        return cut, False
    cut = cut.copy()
    rows = cut.reshape(bottom - top, -1)
    for samples, mask in beside:
        rows[:, samples][mask] = 0
    return cut, True


def _beside(field: Field) -> list[tuple[slice, Bool[np.ndarray, "h n"]]]:
    """The box left and right of the outline: a range of samples, three a pixel, of every pixel
    row, and which of them lie outside. Empty if the outline leaves none out."""
    if field.left is None or field.right is None:
        return []
    width = field.box[3] - field.box[1]
    starts = 3 * np.clip(np.ceil(field.left), 0, width).astype(np.int32)
    stops = 3 * np.clip(np.floor(field.right) + 1, 0, width).astype(np.int32)
    most, least = int(starts.max()), int(stops.min())
    before, after = np.arange(most, dtype=np.int32), np.arange(least, 3 * width, dtype=np.int32)
    return [
        (samples, mask)
        for samples, mask in (
            (slice(0, most), before < starts[:, None]),
            (slice(least, 3 * width), after >= stops[:, None]),
        )
        if mask.size
    ]


def _surround_level(brightness: UInt8[np.ndarray, "h w"]) -> int:
    bright = np.searchsorted(np.cumsum(np.bincount(brightness.ravel())), 0.95 * brightness.size)
    return int(np.clip(_SURROUND_SHARE * bright, *_SURROUND))


def _largest_parts(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """The mask's largest region, with regions of comparable size."""
    if _is_one_block(mask):
        return mask
    regions, areas = _regions(mask)
    if len(areas) == 1:
        return mask
    areas[0] = 0
    return (areas >= _PART_OF_FIELD * areas.max())[regions]


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


def _is_one_block(mask: Bool[np.ndarray, "h w"]) -> bool:
    """Whether the mask fills most of its bounding box, so that nothing lies apart from it."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if len(rows) == 0:
        return False
    height, width = rows[-1] + 1 - rows[0], columns[-1] + 1 - columns[0]
    gapless = len(rows) == height and len(columns) == width
    return bool(gapless and np.count_nonzero(mask) >= _ONE_BLOCK * height * width)


def _opened(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Opening by a square of 3, for which the frame's edge is no edge."""
    for grow in (np.logical_and, np.logical_or):
        for along in (mask, mask.T):
            before = along.copy()
            grow(along[1:], before[:-1], out=along[1:])
            grow(along[:-1], before[1:], out=along[:-1])
    return mask


def _edges(first: int, last: int, step: int, extent: int) -> tuple[int, int]:
    """Pixel range of the sampled rows first..last; the frame's edge within one step of it."""
    start, stop = first * step, (last + 1) * step
    return (0 if start <= step else start), (extent if stop >= extent - step else stop)


def _outline(
    field: Bool[np.ndarray, "n w"], rows: np.ndarray
) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """First and last column of the field's convex hull on each of its rows, in samples."""
    first = field.argmax(axis=1).astype(np.float64)
    last = field.shape[1] - 1 - field[:, ::-1].argmax(axis=1).astype(np.float64)
    return _lower_hull(rows, first), -_lower_hull(rows, -last)


def _lower_hull(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The largest convex function below the points (x, y), x ascending, at every x."""
    if len(x) < 3:
        return y.astype(np.float64)
    rise, run = np.diff(y), np.diff(x)
    bends = np.flatnonzero(rise[1:] * run[:-1] > rise[:-1] * run[1:]) + 1  # all others lie above
    xs, ys = x.tolist(), y.tolist()
    kept = [0]
    for new in (*bends.tolist(), len(xs) - 1):
        while len(kept) > 1:
            a, b = kept[-2], kept[-1]
            if (ys[b] - ys[a]) * (xs[new] - xs[a]) < (ys[new] - ys[a]) * (xs[b] - xs[a]):
                break
            kept.pop()
        kept.append(new)
    return np.interp(x, x[kept], y[kept])
