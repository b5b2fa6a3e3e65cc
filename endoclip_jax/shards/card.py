"""The data card `dataset.json`, and the metadata by which TensorFlow Datasets reads the shards."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from endoclip_jax.records.attributes import BIT_NAMES, NUM_BITS
from endoclip_jax.records.splits import SPLITS
from endoclip_jax.shards.index import DATASET_NAME, SCHEMA_VERSION
from endoclip_jax.shards.writer import Settings

SPLIT_RULE = (
    "HMAC-SHA256 of the patient id under the private salt, first 32 bits as a fraction, cut by "
    "the shares; a `split` column of the manifest overrides it"
)


def fingerprint(shards: Sequence[Mapping[str, Any]]) -> str:
    """16 hexadecimal digits that identify the content of the shards, in order."""
    digest = hashlib.sha256(f"schema {SCHEMA_VERSION}\n".encode())
    for shard in shards:
        digest.update(f"{shard['name']} {shard['sha256']}\n".encode())
    return digest.hexdigest()[:16]


def data_card(
    tables: Mapping[str, np.ndarray],
    shards: Sequence[Mapping[str, Any]],
    notes: Mapping[str, Any],
    rejects: Sequence[Mapping[str, Any]],
    settings: Settings,
    accounting: Mapping[str, int],
    sources: Sequence[str],
) -> dict[str, Any]:
    """Everything a reader of the data set must know, as it is written to dataset.json.

    Args:
      tables: the merged index.
      shards: name, split, records, bytes and sha256 of each shard, in index order.
      notes: `languages` of the reports, how their `readings` came about, and what was noticed
        on `frames`, added up.
      rejects: public reject lines.
      accounting: rows and frames that came in, were stored, and were rejected.
      sources: the salted digest of each records folder that went in.
    """
    items = tables["items"]
    frequency = items["bits_text"].mean(axis=0) if len(items) else np.zeros(NUM_BITS)
    return {
        "schema_version": SCHEMA_VERSION,
        "name": DATASET_NAME,
        "fingerprint": fingerprint(shards),
        "counts": {name: len(table) for name, table in tables.items()},
        "splits": {split: _split_counts(tables, split) for split in SPLITS},
        "split_rule": {"rule": SPLIT_RULE, "shares": list(settings.splits)},
        "accounting": dict(accounting),
        "reject_reasons": dict(sorted(Counter(str(row["reason"]) for row in rejects).items())),
        "languages": notes["languages"],
        "frames": notes["frames"],
        "extractor": dict(settings.extractor),
        "extraction": _extraction(tables) | _readings(settings, notes["readings"]),
        "attributes": {
            "names": list(BIT_NAMES),
            "frequency": [round(float(share), 6) for share in frequency],
            "items_without_attributes": int((items["bits_text"].sum(axis=1) == 0).sum()),
        },
        "settings": {k: v for k, v in settings.as_json().items() if k != "extractor"},
        "sources": list(sources),
        "shards": list(shards),
    }


def _extraction(tables: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What can be said of the extraction without a truth to compare it with."""
    records, items = tables["records"], tables["items"]
    attributes = items["bits_text"].sum(axis=1)
    return {
        "reports_with_polyp_but_no_item": int(
            ((records["has_polyp"] == 1) & (records["num_items"] == 0)).sum()
        ),
        "reports_without_polyp_but_items": int(
            ((records["has_polyp"] == 0) & (records["num_items"] > 0)).sum()
        ),
        "items_of_several_polyps": int((items["count"] > 1).sum()),
        "mean_attributes_per_item": round(float(attributes.mean()), 3) if len(items) else 0.0,
        "items_without_description": int((items["text_length"] == 0).sum()),
    }


def _readings(settings: Settings, readings: Mapping[str, int]) -> dict[str, Any]:
    """What a language model contributed; nothing if there was none."""
    asked = {"fallback", "compared_with"} & settings.extractor.keys()
    return {"readings": dict(readings)} if asked else {}


def _split_counts(tables: Mapping[str, np.ndarray], split: str) -> dict[str, int]:
    records = tables["records"][tables["records"]["split"] == SPLITS.index(split)]
    counts = records["item_count"]
    return {
        "records": len(records),
        "patients": len(np.unique(records["patient"])),
        "frames": int(records["num_frames"].sum()),
        "items": int(records["num_items"].sum()),
        "polyps_known_one_by_one": int(records["num_polyps"].sum()),
        "negative": int((counts == 0).sum()),
        "single": int((counts == 1).sum()),
        "multi": int((counts > 1).sum()),
        "has_polyp": int(records["has_polyp"].sum()),
    }


def write_tfds_metadata(out: Path, shards: Sequence[Mapping[str, Any]]) -> None:
    """features.json and dataset_info.json, so that `tfds.builder_from_directory(out)` works."""
    import tensorflow_datasets as tfds

    split_infos = []
    for split in SPLITS:
        members = [shard for shard in shards if shard["split"] == split]
        if not members:
            continue
        template = tfds.core.ShardedFileTemplate(
            data_dir=out, dataset_name=DATASET_NAME, split=split, filetype_suffix="tfrecord"
        )
        split_infos.append(
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=[shard["records"] for shard in members],
                num_bytes=sum(shard["bytes"] for shard in members),
                filename_template=template,
            )
        )
    tfds.folder_dataset.write_metadata(
        data_dir=out,
        features=tfds_features(),
        split_infos=split_infos,
        filename_template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        check_data=False,
    )


def tfds_features() -> Any:
    """The record layout as a TFDS FeaturesDict; its flat names are the keys of the Example."""
    from tensorflow_datasets import features

    return features.FeaturesDict({
        "patient": features.Text(),
        "exam": features.Text(),
        "report": features.FeaturesDict({"diagnostic": features.Text(), "has_polyp": np.int64}),
        "item": features.Sequence({
            "description": features.Text(),
            "attributes": features.Tensor(shape=(NUM_BITS,), dtype=np.int64),
            "count": np.int64,
        }),
        "frame": features.Sequence({
            "encoded": features.Image(shape=(None, None, 3), encoding_format="jpeg"),
            "ordinal": np.int64,
            "polyp": np.int64,
        }),
        "polyp": features.Sequence({"item": np.int64, "vienna": np.int64, "frame": np.int64}),
    })  # fmt: skip


def card_text(card: Mapping[str, Any]) -> str:
    """dataset.json's bytes."""
    return json.dumps(card, indent=1, ensure_ascii=False) + "\n"
