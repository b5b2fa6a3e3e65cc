"""The data card for people: one page that needs no other file and no network."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from endoclip_jax.records.extraction.choice import describe

PAGE_FILE = "card.html"

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem}
h1{margin-bottom:0}h2{margin-top:2.2rem;border-bottom:1px solid #d5dae1}
.note{color:#5b6675}
.wide{display:grid;grid-template-columns:repeat(auto-fit,minmax(27rem,1fr));gap:0 2rem}
table{border-collapse:collapse;margin:.6rem 0}td,th{padding:.15rem .8rem .15rem 0;text-align:left}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}thead th{border-bottom:1px solid #888}
figure{margin:1rem 0}figcaption{font-weight:600}
svg text{font:12px system-ui,sans-serif}
.warn{background:#fff4e0;border-left:4px solid #d08700;padding:.4rem .8rem}
"""
_BAR = "#3a6ea5"
_VIENNA = ("unknown", "1 no neoplasia", "2 indefinite", "3 low grade", "4 high grade", "5 invasive")


def card_page(card: Mapping[str, Any], tables: Mapping[str, np.ndarray]) -> str:
    """The page: HTML with its style and its drawings inside.

    Args:
      card: dataset.json.
      tables: the merged index, whose distributions are drawn.
    """
    records, items, polyps = tables["records"], tables["items"], tables["polyps"]
    count, frames, extraction = card["accounting"], card["frames"], card["extraction"]
    measures = {k: v for k, v in extraction.items() if k != "readings"}
    measures |= extraction.get("readings", {})
    per_item = items["bits_text"].sum(axis=1)
    body = [
        f"<h1>{_text(card['name'])}</h1>",
        f"<p class=note>Fingerprint {_text(card['fingerprint'])}, schema "
        f"{card['schema_version']}, shards: {len(card['shards'])}, records folders that went in: "
        f"{len(card['sources'])}. Ids are salted hashes. Of a report its sentences on findings are "
        "kept, with names, dates and numbers of persons taken out as far as they were recognised."
        "</p>",
        _warning(frames, count),
        "<h2>What came in and what is here</h2>",
        _table(
            ("", "in", "stored", "rejected", "of rejected records"),
            [
                ("records", count["rows_in"], count["records"], count["records_rejected"], "–"),
                (
                    "frames",
                    count["frames_in"],
                    count["frames"],
                    count["frames_rejected"],
                    count["frames_of_rejected_records"],
                ),
            ],
        ),
        _table(("reason for a reject", "rejects"), list(card["reject_reasons"].items()))
        if card["reject_reasons"]
        else "<p>Nothing was rejected.</p>",
        "<h2>Splits</h2>",
        _table(
            ("split", *(key.replace("_", " ") for key in card["splits"]["train"])),
            [(split, *sizes.values()) for split, sizes in card["splits"].items()],
        ),
        f"<p class=note>{_text(card['split_rule']['rule'])}; shares "
        f"{_text(' : '.join(map(str, card['split_rule']['shares'])))}.</p>",
        "<h2>Examinations</h2><div class=wide>",
        _histogram("frames an examination", records["num_frames"]),
        _histogram("polyps an examination (sum of counts)", records["item_count"]),
        _bars("language of the report", list(card["languages"].items())),
        _bars("Vienna class of polyps known one by one", _vienna(polyps)),
        "</div><h2>Frames</h2>",
        _table(
            ("noticed on stored frames", "frames"),
            [
                ("corners blackened because of writing beside the field", frames["frames_masked"]),
                ("writing seems to be left on the picture", frames["frames_with_text"]),
                ("near-duplicates of another frame of the examination", frames["near_duplicates"]),
            ],
        ),
        _table(("setting", "value"), [(k, str(v)) for k, v in card["settings"].items()]),
        "<h2>Extraction</h2>",
        f"<p>Reports were read by {_text(describe(card['extractor']))}. Nothing here says how well:"
        " compare a sample with the reports.</p>",
        _table(
            ("measure", "value"),
            [(key.replace("_", " "), value) for key, value in measures.items()]
            + [("items without attributes", card["attributes"]["items_without_attributes"])],
        ),
        _histogram("attributes an item", per_item),
        _bars(
            "share of items with an attribute",
            list(zip(card["attributes"]["names"], card["attributes"]["frequency"], strict=True)),
        ),
        "<h2>Shards</h2>",
        _table(
            ("file", "records", "frames", "MB", "SHA-256 begins"),
            [
                (s["name"], s["records"], s["frames"], round(s["bytes"] / 1e6, 1), s["sha256"][:16])
                for s in card["shards"]
            ],
        ),
    ]
    title = f"{_text(card['name'])} {_text(card['fingerprint'])}"
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>"
        f"<style>{_STYLE}</style><body>{''.join(body)}</body></html>\n"
    )


def _warning(frames: Mapping[str, int], count: Mapping[str, int]) -> str:
    if not frames["frames_with_text"]:
        return ""
    return (
        f"<p class=warn>Writing seems to be left on {frames['frames_with_text']} of "
        f"{count['frames']} frames: <code>flags.jsonl</code> names them. Look at them before the "
        "data leave the house, or prepare with <code>--drop_text</code>.</p>"
    )


def _vienna(polyps: np.ndarray) -> list[tuple[str, float]]:
    if len(polyps) == 0:
        return []
    counts = np.bincount(np.clip(polyps["vienna"], 0, 5), minlength=6)
    return [(name, int(number)) for name, number in zip(_VIENNA, counts, strict=True)]


def _histogram(title: str, values: np.ndarray, most: int = 16) -> str:
    """Bars over whole numbers, gathered into at most `most` ranges of equal width."""
    if len(values) == 0:
        return _bars(title, [])
    low, high = int(values.min()), int(values.max())
    width = -(-(high - low + 1) // most)
    counts = np.bincount((np.asarray(values, np.int64) - low) // width)
    names = [
        str(start) if width == 1 else f"{start}–{start + width - 1}"
        for start in range(low, low + width * len(counts), width)
    ]
    title = f"{title}: mean {values.mean():.1f}, median {np.median(values):.0f}"
    return _bars(title, list(zip(names, counts.tolist(), strict=True)))


def _bars(title: str, rows: Sequence[tuple[str, float]]) -> str:
    """Horizontal bars with names and numbers."""
    if not rows:
        return f"<figure><figcaption>{_text(title)}</figcaption>none</figure>"
    most = max((value for _, value in rows), default=0) or 1
    label = max(60, min(300, 8 * max(len(str(name)) for name, _ in rows)))
    lines = []
    for i, (name, value) in enumerate(rows):
        y, length = 18 * i, 180 * value / most
        shown = f"{value:,}" if isinstance(value, int) else f"{100 * value:.1f} %"
        lines.append(
            f'<text x="{label - 6}" y="{y + 13}" text-anchor="end">{_text(name)}</text>'
            f'<rect x="{label}" y="{y + 2}" width="{length:.1f}" height="14" fill="{_BAR}"/>'
            f'<text x="{label + length + 5:.1f}" y="{y + 13}">{shown}</text>'
        )
    size = f'width="{label + 250}" height="{18 * len(rows)}"'
    return (
        f"<figure><figcaption>{_text(title)}</figcaption>"
        f'<svg {size} role="img">{"".join(lines)}</svg></figure>'
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    def cell(tag: str, value: Any, number: bool) -> str:
        shown = f"{value:,}" if isinstance(value, int) else _text(value)
        return f"<{tag}{' class=n' if number else ''}>{shown}</{tag}>"

    numeric = [
        any(isinstance(value, int | float) for value in column)
        for column in zip(*rows, strict=True)
    ]
    numeric = numeric or [False] * len(head)
    top = "".join(cell("th", name, n) for name, n in zip(head, numeric, strict=True))
    lines = "".join(
        "<tr>" + "".join(cell("td", v, n) for v, n in zip(row, numeric, strict=True)) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table>"


def _text(value: Any) -> str:
    return html.escape(str(value))
