"""One self-contained HTML page from plain parts: no script, no network, every word escaped.

The parts are data (`Paragraph`, `Bullets`, `Table`, `Bars`, `Picture`, `Preformatted`,
`Patients`) inside
`Section`s; what they say is written in `report.py`. The page's own security policy forbids it to
load anything, so it can be sent by mail and opened in a hospital.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from endoclip_jax.evaluation import explorer
from endoclip_jax.evaluation.explorer import ShownPatient, explorer_html
from endoclip_jax.files import replace_file

STYLE = """
:root { color-scheme: light; --ink: #1d2329; --soft: #59636e; --line: #d9dee3; --tint: #f4f7fa;
        --ours: #0072b2; --warn: #8a3c00; }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: #fff; color: var(--ink); overflow-wrap: break-word;
       font: 17px/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial,
             "DejaVu Sans", sans-serif; }
main, header, footer { max-width: 860px; margin: 0 auto; padding: 0 20px; }
header { padding-top: 40px; }
h1 { font-size: 2rem; line-height: 1.2; margin: 0 0 .3em; letter-spacing: -.01em; }
h2 { font-size: 1.4rem; line-height: 1.3; margin: 2.6em 0 .5em; padding-top: .7em;
     border-top: 1px solid var(--line); }
h3 { font-size: 1.08rem; line-height: 1.35; margin: 2em 0 .4em; }
p { margin: .7em 0; }
ul { margin: .7em 0; padding-left: 1.3em; }
li { margin: .3em 0; }
a { color: var(--ours); }
.subtitle { color: var(--soft); margin: 0 0 1.2em; }
.banner { border-left: 5px solid #d55e00; background: #fff6ef; padding: .8em 1.1em; margin: 1.2em 0;
          font-size: .95rem; }
.banner p { margin: .35em 0; }
.banner strong { color: var(--warn); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(185px, 1fr)); gap: 12px;
         margin: 1.5em 0; }
.card { border: 1px solid var(--line); border-radius: 8px; padding: 13px 15px 11px; }
.card .name { font-size: .85rem; color: var(--soft); line-height: 1.35; }
.card .value { font-size: 1.9rem; font-weight: 650; line-height: 1.25; color: var(--ours);
               white-space: nowrap; font-variant-numeric: tabular-nums; }
.card .detail { font-size: .85rem; line-height: 1.4; }
nav { font-size: .92rem; color: var(--soft); }
nav a { margin-right: 1em; white-space: nowrap; display: inline-block; padding: .15em 0; }
.scroll { overflow-x: auto; margin: 1em 0 .4em; -webkit-overflow-scrolling: touch; }
.scroll:focus-visible { outline: 2px solid var(--ours); }
table { border-collapse: collapse; font-size: .9rem; line-height: 1.4; min-width: 100%; }
caption { text-align: left; font-weight: 650; padding-bottom: .45em; caption-side: top; }
th, td { padding: .42em .75em .42em 0; text-align: left; vertical-align: top;
         border-bottom: 1px solid var(--line); font-variant-numeric: tabular-nums; }
thead th { border-bottom: 2px solid var(--ink); vertical-align: bottom; font-size: .85rem; }
table.numeric td { white-space: nowrap; }
table.numeric td span { color: var(--soft); font-size: .84em; }
tbody th { font-weight: 500; padding-right: 1.2em; }
tr.ours th, tr.ours td { background: #eaf4fb; font-weight: 650; }
tr.ours td span { font-weight: 400; color: #33404c; }
tr.quiet th, tr.quiet td { color: var(--soft); font-style: italic; }
tr.ours th:first-child, tr.quiet th:first-child, tbody th:first-child { padding-left: .5em; }
.note { font-size: .88rem; color: var(--soft); margin-top: .3em; }
figure { margin: 1.6em 0 2.2em; }
figure img, figure svg { width: 100%; height: auto; display: block; }
figcaption { font-size: .93rem; line-height: 1.5; margin-top: .6em; }
figcaption p { margin: .35em 0; }
figcaption b { font-weight: 650; }
figcaption .beware { color: var(--warn); }
figcaption .beware b { color: inherit; }
pre { background: var(--tint); border: 1px solid var(--line); border-radius: 6px;
      padding: 12px 14px; overflow: auto; max-height: 32em;
      font: 13px/1.5 ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
details { margin: 1.4em 0; }
summary { cursor: pointer; font-weight: 600; padding: .35em 0; }
footer { margin-top: 4em; padding-top: 1.2em; padding-bottom: 4em; color: var(--soft);
         font-size: .88rem; border-top: 1px solid var(--line); }
@media (max-width: 600px) {
  body { font-size: 16px; }
  header { padding-top: 24px; }
  h1 { font-size: 1.6rem; }
  .cards { grid-template-columns: 1fr 1fr; gap: 9px; }
  .card { padding: 10px 11px; }
  .card .value { font-size: 1.55rem; }
  figure .scroll img { width: 680px; max-width: none; }
  figure .scroll::before, .wide::before { content: "swipe sideways for the rest →"; display: block;
    position: sticky; left: 0; width: max-content; font-size: .78rem; color: var(--soft); }
  table.numeric tbody th { position: sticky; left: 0; background: #fff; min-width: 7.2em; }
  table.numeric tr.ours th { background: #eaf4fb; }
}
@media print {
  body { font-size: 10.5pt; }
  h2, h3, caption { break-after: avoid; }
  figure, tr, .card { break-inside: avoid; }
  nav { display: none; }
  pre { max-height: none; white-space: pre-wrap; }
}
""".strip()

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@dataclass(frozen=True)
class Paragraph:
    """Running text after a bold `lead`; `note` sets it small and grey."""

    text: str
    lead: str = ""
    note: bool = False


@dataclass(frozen=True)
class Heading:
    """A heading inside a section."""

    text: str


@dataclass(frozen=True)
class Bullets:
    items: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """Cells of text, the first of each row its name. A cell (value, spread) sets the spread small.

    `ours` and `quiet` are the numbers of rows to tint and to set in grey (chance levels).
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str | tuple[str, str], ...], ...]
    caption: str = ""
    ours: tuple[int, ...] = ()
    quiet: tuple[int, ...] = ()
    numeric: bool = False


@dataclass(frozen=True)
class Bar:
    """One line of `Bars`: a share in [0, 1] with its interval."""

    name: str
    value: float
    low: float
    high: float
    ours: bool = False


@dataclass(frozen=True)
class Bars:
    """Shares with their intervals on one scale from 0 to 1, beside the level of chance."""

    title: str
    bars: tuple[Bar, ...]
    chance: float | None


@dataclass(frozen=True)
class Picture:
    """A PNG or JPEG with what there is to see in it and what must not be concluded from it."""

    data: bytes
    see: str = ""
    beware: str = ""
    alt: str = ""


@dataclass(frozen=True)
class Preformatted:
    text: str


@dataclass(frozen=True)
class Patients:
    """The record explorer: one patient is shown at a time."""

    patients: tuple[ShownPatient, ...]


@dataclass(frozen=True)
class Folded:
    """Parts behind a line that opens on a click or the Enter key."""

    summary: str
    parts: tuple[Part, ...]


Part = Paragraph | Heading | Bullets | Table | Bars | Picture | Preformatted | Patients | Folded


@dataclass(frozen=True)
class Section:
    title: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Card:
    """A headline number: what it is, its value, one line of what to hold it against."""

    name: str
    value: str
    detail: str


def write_page(
    path: Path,
    *,
    title: str,
    subtitle: str,
    warnings: Sequence[tuple[str, str]],
    cards: Sequence[Card],
    sections: Sequence[Section],
    footer: str,
) -> Path:
    """Write one HTML file, whole or not at all; `warnings` are (bold words, sentence) pairs."""
    path = Path(path)
    anchors = [f"section-{number}" for number in range(1, len(sections) + 1)]
    links = "".join(
        f'<a href="#{anchor}">{escape(section.title)}</a>'
        for anchor, section in zip(anchors, sections, strict=True)
    )
    body = "".join(
        f'<section aria-labelledby="{anchor}"><h2 id="{anchor}">{escape(section.title)}</h2>'
        f"{_parts(section.parts)}</section>\n"
        for anchor, section in zip(anchors, sections, strict=True)
    )
    banner = "".join(f"<p><strong>{escape(a)}</strong> {escape(b)}</p>" for a, b in warnings)
    page = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>{escape(title)}</title>
<style>
{STYLE}
{explorer.STYLE}
</style>
</head>
<body>
<header>
<h1>{escape(title)}</h1>
<p class="subtitle">{escape(subtitle)}</p>
<div class="banner" role="note">{banner}</div>
<div class="cards">{"".join(_card(card) for card in cards)}</div>
<nav aria-label="Contents">{links}</nav>
</header>
<main>
{body}</main>
<footer>{escape(footer)}</footer>
</body>
</html>
"""
    replace_file(path, page)
    return path


def _parts(parts: Sequence[Part]) -> str:
    return "\n".join(_part(part) for part in parts)


def _part(part: Part) -> str:
    match part:
        case Paragraph(text, lead, note):
            bold = f"<strong>{escape(lead)}</strong> " if lead else ""
            kind = ' class="note"' if note else ""
            return f"<p{kind}>{bold}{escape(text)}</p>"
        case Heading(text):
            return f"<h3>{escape(text)}</h3>"
        case Bullets(items):
            return "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>"
        case Preformatted(text):
            return f'<pre tabindex="0">{escape(text)}</pre>'
        case Patients(patients):
            return explorer_html(patients)
        case Folded(summary, inner):
            return f"<details><summary>{escape(summary)}</summary>{_parts(inner)}</details>"
        case Table():
            return _table(part)
        case Bars():
            return _bars(part)
        case Picture():
            return _picture(part)


def _card(card: Card) -> str:
    return (
        f'<div class="card"><div class="name">{escape(card.name)}</div>'
        f'<div class="value">{escape(card.value)}</div>'
        f'<div class="detail">{escape(card.detail)}</div></div>'
    )


def _table(table: Table) -> str:
    caption = f"<caption>{escape(table.caption)}</caption>" if table.caption else ""
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in table.columns)
    lines = []
    for number, (name, *cells) in enumerate(table.rows):
        kind = "ours" if number in table.ours else "quiet" if number in table.quiet else ""
        attribute = f' class="{kind}"' if kind else ""
        data = "".join(f"<td>{_cell(cell)}</td>" for cell in cells)
        lines.append(f'<tr{attribute}><th scope="row">{_cell(name)}</th>{data}</tr>')
    wide = " wide" if len(table.columns) > 4 else ""
    numeric = ' class="numeric"' if table.numeric else ""
    return (
        f'<div class="scroll{wide}" tabindex="0" role="region" '
        f'aria-label="{escape(table.caption or "table")}"><table{numeric}>{caption}'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _cell(cell: str | tuple[str, str]) -> str:
    if isinstance(cell, str):
        return escape(cell)
    value, spread = cell
    return f"{escape(value)}<br><span>{escape(spread)}</span>"


def _bars(bars: Bars) -> str:
    """Dots with whiskers as inline SVG, drawn at phone width so that it never needs to scroll."""
    left, right, step, top = 182, 372, 30, 44
    height = top + step * len(bars.bars) + 26

    def x(share: float) -> float:
        return round(left + (right - left) * min(max(share, 0.0), 1.0), 1)

    bottom = height - 22
    shapes = [f'<text x="0" y="14" font-weight="650">{escape(bars.title)}</text>']
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        shapes.append(
            f'<line x1="{x(tick)}" x2="{x(tick)}" y1="{top - 8}" y2="{bottom}" stroke="#e3e7eb"/>'
            f'<text x="{x(tick)}" y="{height - 7}" text-anchor="middle" fill="#59636e">'
            f"{tick:g}</text>"
        )
    if bars.chance is not None:
        shapes.append(
            f'<line x1="{x(bars.chance)}" x2="{x(bars.chance)}" y1="{top - 8}" y2="{bottom}" '
            'stroke="#1d2329" stroke-dasharray="2 3" stroke-width="1.4"/>'
            f'<text x="{x(bars.chance)}" y="{top - 11}" text-anchor="middle" fill="#59636e">'
            f"chance {bars.chance:.2f}</text>"
        )
    for number, bar in enumerate(bars.bars):
        y = top + step * number + 11
        colour, weight = ("#0072b2", 650) if bar.ours else ("#767676", 400)
        shapes.append(
            f'<text x="0" y="{y + 4}" font-weight="{weight}">{escape(bar.name)}</text>'
            f'<line x1="{x(bar.low)}" x2="{x(bar.high)}" y1="{y}" y2="{y}" stroke="{colour}" '
            'stroke-width="3" stroke-linecap="round" opacity=".55"/>'
            f'<circle cx="{x(bar.value)}" cy="{y}" r="5" fill="{colour}"/>'
            f'<text x="{right + 10}" y="{y + 4}" font-weight="{weight}">{bar.value:.3f}</text>'
        )
    words = "; ".join(f"{bar.name} {bar.value:.3f}" for bar in bars.bars)
    return (
        f'<figure class="bars"><svg viewBox="0 0 430 {height}" role="img" font-size="13" '
        f'fill="#1d2329" style="max-width: 540px" aria-label="{escape(bars.title)}: '
        f'{escape(words)}">{"".join(shapes)}</svg></figure>'
    )


def _picture(picture: Picture) -> str:
    kind = "png" if picture.data.startswith(b"\x89PNG") else "jpeg"
    source = f"data:image/{kind};base64,{base64.b64encode(picture.data).decode('ascii')}"
    alt = picture.alt or picture.see
    see = f"<p><b>What to see.</b> {escape(picture.see)}</p>" if picture.see else ""
    beware = (
        f'<p class="beware"><b>What not to conclude.</b> {escape(picture.beware)}</p>'
        if picture.beware
        else ""
    )
    return (
        f'<figure><div class="scroll" tabindex="0" role="region" aria-label="figure">'
        f'<img alt="{escape(alt)}" src="{source}"></div>'
        f"<figcaption>{see}{beware}</figcaption></figure>"
    )
