"""The index of a prepared data set: where every record, frame, item and polyp lies.

Four structured arrays and one text file beside the shards, memory-mapped, so that a data set of
13 thousand patients and 874 thousand frames opens at once and costs no memory until it is read.
"""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
from jaxtyping import Int64

from endoclip_jax.errors import UserError
from endoclip_jax.records.attributes import NUM_BITS
from endoclip_jax.records.splits import SPLITS
from endoclip_jax.shards.tfrecord import ShardFiles

SCHEMA_VERSION = 2
DATASET_NAME = "endoclip"

RECORD = np.dtype(
    [
        ("shard", "<i4"),  # position in `Index.shards`
        ("offset", "<i8"),  # byte offset of the framed TFRecord in the shard
        ("length", "<i8"),  # bytes of the framed TFRecord, header and footer included
        ("split", "u1"),  # position in SPLITS
        ("patient", "S16"),  # salted hash, 16 hexadecimal digits
        ("exam", "S16"),
        ("first_frame", "<i8"),
        ("num_frames", "<i4"),
        ("first_item", "<i8"),
        ("num_items", "<i4"),
        ("item_count", "<i4"),  # polyps the items stand for: the sum of their counts
        ("first_polyp", "<i8"),
        ("num_polyps", "<i4"),  # polyps known one by one (pathology or frame labels); 0 if not
        ("has_polyp", "u1"),
    ]
)
FRAME = np.dtype(
    [
        ("record", "<i8"),
        ("ordinal", "<i4"),  # place among the examination's images; a rejected one leaves a gap
        ("offset", "<i8"),  # byte offset of the JPEG in the shard
        ("length", "<i4"),
        ("crc", "<u4"),  # CRC-32C of the JPEG
        ("height", "<u2"),  # pixels, so that loaders know their arrays before they decode
        ("width", "<u2"),
        ("polyp", "<i2"),  # position among the record's polyps, NO_POLYP or UNKNOWN_POLYP
    ]
)
ITEM = np.dtype(
    [
        ("record", "<i8"),
        ("count", "<i4"),
        ("bits_text", "u1", (NUM_BITS,)),
        ("bits_image", "u1", (NUM_BITS,)),
        ("text_offset", "<i8"),  # bytes into index.text.bin, UTF-8
        ("text_length", "<i4"),
    ]
)
POLYP = np.dtype(
    [
        ("record", "<i8"),
        ("item", "<i4"),  # position among the record's items, -1 unknown
        ("vienna", "<i2"),  # 1 to 5, 0 unknown
        ("frame", "<i8"),  # row in `frames` of the most indicative frame, -1 none
    ]
)
TABLES = {"records": RECORD, "frames": FRAME, "items": ITEM, "polyps": POLYP}
TEXT_FILE = "index.text.bin"
CARD_FILE = "dataset.json"


def table_file(name: str) -> str:
    """File name of one of TABLES."""
    return f"index.{name}.npy"


class Index:
    """A prepared data set, opened with `Index.open`; pickles as its folder's name.

    `card` is dataset.json, `fingerprint` identifies the shards' content, `shards` are file names
    in `folder`, and `records`, `frames`, `items`, `polyps` are read-only memory maps of the
    dtypes above, records ordered by split, then as in the manifest.
    """

    def __init__(self, folder: Path, card: dict[str, Any], tables: dict[str, np.ndarray]) -> None:
        self.folder = folder
        self.card = card
        self.fingerprint: str = card["fingerprint"]
        self.shards: tuple[str, ...] = tuple(shard["name"] for shard in card["shards"])
        self.records = tables["records"]
        self.frames = tables["frames"]
        self.items = tables["items"]
        self.polyps = tables["polyps"]
        self.files = ShardFiles(folder)

    @classmethod
    def open(cls, folder: str | Path) -> Index:
        """Opens a prepared data set; UserError if it is missing, damaged or of another schema."""
        folder = Path(folder).expanduser().absolute()
        card = read_card(folder)
        tables = {}
        for name, dtype in TABLES.items():
            path = folder / table_file(name)
            try:
                table = _open_table(path)
            except (OSError, ValueError) as error:
                raise UserError(
                    f"{path} cannot be read ({error}): {how_to_make_anew(folder)}"
                ) from error
            if table.dtype != dtype or len(table) != card["counts"][name]:
                raise UserError(
                    f"{path} does not belong to {folder / CARD_FILE}: {how_to_make_anew(folder)}"
                )
            tables[name] = table
        return cls(folder, card, tables)

    def __reduce__(self) -> tuple:
        return Index.open, (self.folder,)

    def __repr__(self) -> str:
        return (
            f"Index({self.folder.name}, {len(self.records)} records, {len(self.frames)} frames, "
            f"fingerprint {self.fingerprint})"
        )

    def rows(self, split: str | None = None) -> Int64[np.ndarray, " n"]:
        """Record rows of one split, or of all (None), in manifest order."""
        if split is None:
            return np.arange(len(self.records), dtype=np.int64)
        if split not in SPLITS:
            raise UserError(f"there is no split {split!r}: use one of {', '.join(SPLITS)}")
        return np.flatnonzero(self.records["split"] == SPLITS.index(split)).astype(np.int64)

    def frame_rows(self, record_row: SupportsIndex) -> Int64[np.ndarray, " k"]:
        """Rows in `frames` of one record, in frame order."""
        return _span(self.records[record_row], "first_frame", "num_frames")

    def item_rows(self, record_row: SupportsIndex) -> Int64[np.ndarray, " l"]:
        """Rows in `items` of one record, in report order."""
        return _span(self.records[record_row], "first_item", "num_items")

    def polyp_rows(self, record_row: SupportsIndex) -> Int64[np.ndarray, " p"]:
        """Rows in `polyps` of one record."""
        return _span(self.records[record_row], "first_polyp", "num_polyps")

    def description(self, item_row: SupportsIndex) -> str:
        """The English description of one item."""
        item = self.items[item_row]
        start = int(item["text_offset"])
        return bytes(self._text[start : start + int(item["text_length"])]).decode()

    @cached_property
    def _text(self) -> np.ndarray:
        path = self.folder / TEXT_FILE
        if path.stat().st_size == 0:  # an empty file cannot be mapped
            return np.zeros(0, np.uint8)
        return np.memmap(path, np.uint8, mode="r")


def read_card(folder: Path) -> dict[str, Any]:
    """dataset.json of a prepared data set; UserError if missing or of another schema version."""
    path = folder / CARD_FILE
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{folder} holds no prepared data set (no {CARD_FILE}): make one with "
            f"python launch/prepare.py --records=RECORDS --out={folder}"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): {how_to_make_anew(folder)}") from error
    version = card.get("schema_version") if isinstance(card, dict) else None
    if version != SCHEMA_VERSION:
        raise UserError(
            f"{folder} has schema version {version} and this program reads {SCHEMA_VERSION}: "
            f"{how_to_make_anew(folder)}"
        )
    return card


def how_to_make_anew(folder: Path) -> str:
    """What to do about a data set that cannot be used."""
    return (
        f"move {folder.name} away, keep {folder.name}.private beside it (the salt of the ids), and "
        "run launch/prepare.py on the records again; of a demonstration, delete the whole workdir"
    )


def _open_table(path: Path) -> np.ndarray:
    """A memory map where there are rows, else the empty array (which cannot be mapped).

    As a plain array over the map: a `memmap`'s own item access costs more than a frame's checksum.
    """
    table = np.load(path, mmap_mode="r", allow_pickle=False)
    return np.asarray(table) if len(table) else np.load(path, allow_pickle=False)


def _span(record: np.void, first: str, number: str) -> np.ndarray:
    start = int(record[first])
    return np.arange(start, start + int(record[number]), dtype=np.int64)
