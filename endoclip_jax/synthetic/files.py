"""The few forms in which the cohort is stored: CSV, JSON lines and JPEG."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import simplejpeg

JPEG_QUALITY = 92


def table_text(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV with a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def json_lines(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Rows as UTF-8 JSON lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def encode_jpeg(pixels: np.ndarray) -> bytes:
    """uint8[H, W, 3] RGB as JPEG with halved chroma, as endoscopy archives hold it."""
    return simplejpeg.encode_jpeg(
        np.ascontiguousarray(pixels), quality=JPEG_QUALITY, colorspace="RGB", colorsubsampling="420"
    )
