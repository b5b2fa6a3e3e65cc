"""The last step of a preparation: from the shards' parts to the index, the card and the rest."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from endoclip_jax.shards.card import card_text, data_card, write_tfds_metadata
from endoclip_jax.shards.files import PRIVATE_FILE_MODE, full_disk_is_told, whole_file, write_whole
from endoclip_jax.shards.index import CARD_FILE, TABLES, TEXT_FILE, table_file
from endoclip_jax.shards.plan import Plan
from endoclip_jax.shards.writer import load_part, public_reject, reject_row

REJECTS_FILE = "rejects.jsonl"


def merge(plan: Plan, out: Path, private: Path, parts: Path, salt: bytes) -> dict[str, Any]:
    """Writes everything beside the shards, the card last, and removes the parts; the card."""
    tables, text, shards, metas = _merged(plan, parts)
    rejects = [reject_row(reject, salt) for reject in plan.rejects]
    rejects += [row for meta in metas for row in meta["rejects"]]
    rejects.sort(key=lambda row: (row["row"], -1 if row["ordinal"] is None else row["ordinal"]))
    public = [public_reject(row) for row in rejects]
    identities = sorted((row for meta in metas for row in meta["private"]), key=lambda r: r["row"])
    card = data_card(
        tables,
        shards,
        [language for meta in metas for language in meta["languages"]],
        public,
        plan.settings,
        _accounting(plan, tables, public),
        plan.source,
    )
    with full_disk_is_told(out):
        for name, table in tables.items():
            with whole_file(out / table_file(name)) as stream:
                np.save(stream, table)
        write_whole(out / TEXT_FILE, text)
        write_whole(out / REJECTS_FILE, _lines(public))
        write_whole(private / "rejects_raw.jsonl", _lines(rejects), PRIVATE_FILE_MODE)
        write_whole(private / "ids.jsonl", _lines(identities), PRIVATE_FILE_MODE)
        write_tfds_metadata(out, shards)
        write_whole(out / CARD_FILE, card_text(card))
    shutil.rmtree(parts)
    return card


def _merged(
    plan: Plan, parts: Path
) -> tuple[dict[str, np.ndarray], bytes, list[dict[str, Any]], list[dict[str, Any]]]:
    """The parts one after another, rows and positions counted from the data set's beginning."""
    pieces: dict[str, list[np.ndarray]] = {name: [] for name in TABLES}
    first = dict.fromkeys(TABLES, 0)
    texts, shards, metas, text_start = [], [], [], 0
    for number, block in enumerate(plan.blocks):
        tables, text, meta = load_part(parts / f"{block.shard}.npz")
        tables["records"]["shard"] = number
        for name in ("frames", "items", "polyps"):
            tables["records"][f"first_{name[:-1]}"] += first[name]
            tables[name]["record"] += first["records"]
        tables["items"]["text_offset"] += text_start
        shown = tables["polyps"]["frame"] >= 0
        tables["polyps"]["frame"][shown] += first["frames"]
        for name, table in tables.items():
            pieces[name].append(table)
            first[name] += len(table)
        texts.append(text)
        text_start += len(text)
        metas.append(meta)
        shards.append({
            "name": block.shard, "split": block.split, "records": len(tables["records"]),
            "frames": len(tables["frames"]), "bytes": meta["bytes"], "sha256": meta["sha256"],
        })  # fmt: skip
    merged = {name: np.concatenate(piece) for name, piece in pieces.items()}
    return merged, b"".join(texts), shards, metas


def _accounting(
    plan: Plan, tables: Mapping[str, np.ndarray], rejects: list[dict[str, Any]]
) -> dict[str, int]:
    whole = [row for row in rejects if row["kind"] == "record"]
    accounting = {
        "rows_in": plan.rows_in,
        "records": len(tables["records"]),
        "records_rejected": len(whole),
        "frames_in": plan.frames_in,
        "frames": len(tables["frames"]),
        "frames_rejected": len(rejects) - len(whole),
        "frames_of_rejected_records": sum(row["frames"] for row in whole),
    }
    rows_out = accounting["records"] + accounting["records_rejected"]
    frames_out = (
        accounting["frames"]
        + accounting["frames_rejected"]
        + accounting["frames_of_rejected_records"]
    )
    if (rows_out, frames_out) != (plan.rows_in, plan.frames_in):
        raise AssertionError(f"rows or frames got lost: {accounting}")
    return accounting


def _lines(rows: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
