"""The last step of a preparation: from the shards' parts to the index, the card and the rest.

Everything is written part by part, so that memory does not grow with the data set but by the
index itself, which is mapped.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from endoclip_jax.shards.card import card_text, data_card, write_tfds_metadata
from endoclip_jax.shards.files import PRIVATE_FILE_MODE, full_disk_is_told, whole_file, write_whole
from endoclip_jax.shards.index import CARD_FILE, TABLES, TEXT_FILE, table_file
from endoclip_jax.shards.page import PAGE_FILE, card_page
from endoclip_jax.shards.parts import StoredPart, load_meta, load_part, public_reject
from endoclip_jax.shards.state import State
from endoclip_jax.shards.writer import Settings

REJECTS_FILE, FLAGS_FILE = "rejects.jsonl", "flags.jsonl"
DISAGREEMENTS_FILE = "disagreements.jsonl"  # private: what the rules and a model read otherwise


def merge(state: State, out: Path, settings: Settings) -> dict[str, Any]:
    """Writes everything beside the shards, the card last; the card.

    Until the card is there again the data set cannot be opened; the merge can be repeated.
    """
    with full_disk_is_told(out):
        (out / CARD_FILE).unlink(missing_ok=True)
        _rename_shards(state, out)
        shards = [
            {"name": name, "split": split, **_shard_facts(load_meta(state.part(part)))}
            for name, split, part, _ in state.shards()
        ]
        counts = {name: sum(shard[name] for shard in shards) for name in TABLES}
        for name in TABLES:
            with whole_file(out / table_file(name)) as stream:
                np.lib.format.write_array_header_1_0(
                    stream,
                    {
                        "descr": np.lib.format.dtype_to_descr(TABLES[name]),
                        "fortran_order": False,
                        "shape": (counts[name],),
                    },
                )
                for tables in _merged_tables(state):
                    stream.write(tables[name].tobytes())
        with whole_file(out / TEXT_FILE) as stream:
            for part in _parts(state):
                stream.write(part.text)
        notes = _write_private_and_flags(state, out)
        rejects = _write_rejects(state, out)
        tables = {name: _mapped(out / table_file(name)) for name in TABLES}
        card = data_card(
            tables,
            [{key: shard[key] for key in _SHARD_KEYS} for shard in shards],
            notes,
            rejects,
            settings,
            _accounting(state, counts, rejects),
            [delivery.source for delivery in state.deliveries],
        )
        write_tfds_metadata(out, shards)
        write_whole(out / PAGE_FILE, card_page(card, tables))
        write_whole(out / CARD_FILE, card_text(card))
    return card


_SHARD_KEYS = ("name", "split", "records", "frames", "bytes", "sha256")


def _shard_facts(meta: Mapping[str, Any]) -> dict[str, Any]:
    return {**meta["counts"], "bytes": meta["bytes"], "sha256": meta["sha256"]}


def _rename_shards(state: State, out: Path) -> None:
    """Gives shards of earlier deliveries the total that stands in every name."""
    for name, _, _, _ in state.shards():
        if not (out / name).exists():
            stem = name.rpartition("-of-")[0]
            (old,) = out.glob(f"{stem}-of-?????")
            old.rename(out / name)


def _parts(state: State) -> Iterator[StoredPart]:
    for _, _, name, _ in state.shards():
        yield load_part(state.part(name))


def _merged_tables(state: State) -> Iterator[dict[str, np.ndarray]]:
    """The parts' tables, rows and positions counted from the data set's beginning."""
    first = dict.fromkeys(TABLES, 0)
    text_start = 0
    for number, part in enumerate(_parts(state)):
        tables = part.tables
        tables["records"]["shard"] = number
        for name in ("frames", "items", "polyps"):
            tables["records"][f"first_{name[:-1]}"] += first[name]
            tables[name]["record"] += first["records"]
        tables["items"]["text_offset"] += text_start
        shown = tables["polyps"]["frame"] >= 0
        tables["polyps"]["frame"][shown] += first["frames"]
        for name, table in tables.items():
            first[name] += len(table)
        text_start += len(part.text)
        yield tables


def _write_private_and_flags(state: State, out: Path) -> dict[str, Any]:
    """Writes ids, disagreements and flags; the sums of what was noted, for the card."""
    languages: Counter[str] = Counter()
    readings: Counter[str] = Counter()
    sums = {"frames_masked": 0, "frames_with_text": 0, "near_duplicates": 0}
    with (
        whole_file(state.private / "ids.jsonl", PRIVATE_FILE_MODE) as identities,
        whole_file(state.private / DISAGREEMENTS_FILE, PRIVATE_FILE_MODE) as disagreements,
        whole_file(out / FLAGS_FILE) as flags,
    ):
        for _, _, name, _ in state.shards():
            meta = load_meta(state.part(name))
            for identity, note in zip(meta["private"], meta["notes"], strict=True):
                disagreement = identity.pop("disagreement", None)
                identities.write(_line(identity))
                if disagreement:
                    named = {key: identity[key] for key in ("row", "exam", "exam_id")}
                    disagreements.write(_line(named | disagreement))
                languages[note["language"]] += 1
                sums["frames_masked"] += note["masked"]
                sums["frames_with_text"] += len(note["text"])
                sums["near_duplicates"] += len(note["duplicates"])
                readings.update(_counted(note["reading"]))
                fallback = note["reading"]["fallback"]
                if note["text"] or note["duplicates"] or fallback:
                    flagged = {key: note[key] for key in ("text", "duplicates")}
                    line = {"exam": identity["exam"], **flagged, "fallback": fallback}
                    flags.write(_line(line))
    return {
        "languages": dict(sorted(languages.items())),
        "readings": dict(readings),
        "frames": sums,
    }


def _counted(reading: Mapping[str, Any]) -> dict[str, int]:
    """How one report was read, as numbers to add up."""
    return {
        **{f"read_by_{source}": int(reading["source"] == source) for source in ("rules", "llm")},
        "corrected": int(reading["corrected"]),
        "reworded": int(reading["reworded"]),
        **{f"fallback_{why}": int(reading["fallback"] == why) for why in ("refused", "server")},
        "compared": int(reading["differs"] is not None),
        "differing": int(bool(reading["differs"])),
    }


def _write_rejects(state: State, out: Path) -> list[dict[str, Any]]:
    """Writes both lists of rejects, in row order; the public one."""
    rejects = [row for delivery in state.deliveries for row in delivery.rejects]
    for _, _, name, _ in state.shards():
        rejects += load_meta(state.part(name))["rejects"]
    rejects.sort(
        key=lambda row: (
            row["delivery"], row["row"], -1 if row["ordinal"] is None else row["ordinal"]
        )
    )  # fmt: skip
    public = [public_reject(row) for row in rejects]
    with whole_file(out / REJECTS_FILE) as stream:
        stream.writelines(map(_line, public))
    with whole_file(state.private / "rejects_raw.jsonl", PRIVATE_FILE_MODE) as stream:
        stream.writelines(map(_line, rejects))
    return public


def _accounting(
    state: State, counts: Mapping[str, int], rejects: list[dict[str, Any]]
) -> dict[str, int]:
    whole = [row for row in rejects if row["kind"] == "record"]
    accounting = {
        "rows_in": sum(delivery.rows_in for delivery in state.deliveries),
        "records": counts["records"],
        "records_rejected": len(whole),
        "frames_in": sum(delivery.frames_in for delivery in state.deliveries),
        "frames": counts["frames"],
        "frames_rejected": len(rejects) - len(whole),
        "frames_of_rejected_records": sum(row["frames"] for row in whole),
    }
    rows_out = accounting["records"] + accounting["records_rejected"]
    frames_out = (
        accounting["frames"]
        + accounting["frames_rejected"]
        + accounting["frames_of_rejected_records"]
    )
    if (rows_out, frames_out) != (accounting["rows_in"], accounting["frames_in"]):
        raise AssertionError(f"rows or frames got lost: {accounting}")
    return accounting


def _mapped(path: Path) -> np.ndarray:
    table = np.load(path, mmap_mode="r", allow_pickle=False)
    return table if len(table) else np.load(path, allow_pickle=False)


def _line(row: Mapping[str, Any]) -> bytes:
    return (json.dumps(row, ensure_ascii=False) + "\n").encode()
