"""The record explorer of the report: pick a patient, see its frames, what was kept, what was read.

It runs no script, so that the page keeps its policy of loading and running nothing: each patient is
a radio button (arrow keys move through them), and style rules show the panel of the one chosen.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from jaxtyping import Float

STYLE = """
.picker { border: 1px solid var(--line); border-radius: 8px; padding: 8px 12px 10px;
          margin: 1em 0; }
.picker legend { font-weight: 650; padding: 0 .4em; }
.choices { display: grid; grid-template-columns: repeat(auto-fill, minmax(215px, 1fr));
           gap: 2px 8px; max-height: 13.5em; overflow-y: auto; }
.choices label { display: flex; align-items: baseline; gap: .5em; padding: .3em .5em;
                 border-radius: 5px; cursor: pointer; line-height: 1.3; }
.choices input { flex: none; accent-color: var(--ours); }
.choices small { color: var(--soft); display: block; font-weight: 400; }
.choices label:has(:checked) { background: #eaf4fb; font-weight: 650; }
.choices label:has(:focus-visible) { outline: 2px solid var(--ours); outline-offset: -2px; }
.patient { display: none; }
@supports not selector(:has(a)) { .patient { display: block; } }
.patient > h3 { margin: 1em 0 .3em; }
.patient > h4 { margin: .9em 0 .2em; font-size: .95rem; }
.sentences { margin: .2em 0; }
.frames { display: grid; grid-template-columns: repeat(auto-fill, minmax(112px, 1fr));
          gap: 12px 10px; margin: .5em 0 1em; padding: 0; list-style: none; }
.frames li { margin: 0; font-size: .8rem; line-height: 1.35; font-variant-numeric: tabular-nums; }
.frames img { width: 100%; display: block; border-radius: 4px; border: 3px solid transparent; }
.frames li.kept img { border-color: var(--ours); }
.frames .badge { background: var(--ours); color: #fff; border-radius: 3px; padding: 0 .35em; }
.frames meter { width: 100%; height: .7em; display: block; margin: .25em 0 .1em; }
.frames b.polyp { color: var(--warn); }
.sentences li { margin: .25em 0; }
table.reading td { text-align: center; min-width: 58px; padding: .3em .2em; white-space: nowrap; }
table.reading thead th { text-align: center; padding: 0 2px .3em; font-weight: 400; }
table.reading thead img { width: 54px; display: block; margin: 0 auto; border-radius: 3px; }
table.reading tbody th { min-width: 11em; max-width: 19em; font-weight: 400; line-height: 1.3; }
@media (max-width: 600px) {
  .choices { grid-template-columns: 1fr 1fr; max-height: 15em; }
  .frames { grid-template-columns: repeat(3, 1fr); }
  table.reading tbody th { min-width: 8.5em; max-width: 9.5em; position: sticky; left: 0;
                           background: #fff; font-size: .82rem; }
}
@media print { .choices { display: none; } }
""".strip()


@dataclass(frozen=True)
class ShownFrame:
    """One frame: its JPEG, the probability that it shows a polyp, whether stage 1 kept it.

    `polyp` is the truth: the polyp's number from 0, −1 none, −2 unknown.
    """

    jpeg: bytes
    probability: float
    kept: bool
    polyp: int


@dataclass(frozen=True)
class ShownPatient:
    """One examination; `reads` and `looks` are over its kept frames, None without attention.

    Attributes:
      name: of a salted hash, never a raw id.
      frames: in the order of the examination.
      sentences: the descriptions read from its report.
      reads: [kept, sentences], what each frame reads; rows sum to one.
      looks: [sentences, kept], what each sentence looks at; rows sum to one.
    """

    name: str
    frames: tuple[ShownFrame, ...]
    sentences: tuple[str, ...]
    reads: Float[np.ndarray, "k l"] | None = None
    looks: Float[np.ndarray, "l k"] | None = None


def explorer_html(patients: Sequence[ShownPatient]) -> str:
    """The picker with one panel a patient, the first one chosen."""
    choices, panels, rules = [], [], []
    for number, patient in enumerate(patients):
        checked = " checked" if number == 0 else ""
        choices.append(
            f'<label><input type="radio" name="patient" id="pick-{number}"{checked}>'
            f"<span>{escape(patient.name)}<small>{escape(_in_short(patient))}</small></span></label>"
        )
        rules.append(f".explorer:has(#pick-{number}:checked) #patient-{number}")
        panels.append(_panel(number, patient))
    shown = f"<style>{','.join(rules)}{{display:block}}</style>"
    return (
        f'<div class="explorer">{shown}<fieldset class="picker"><legend>Pick a patient</legend>'
        f'<div class="choices">{"".join(choices)}</div></fieldset>{"".join(panels)}</div>'
    )


def _in_short(patient: ShownPatient) -> str:
    kept = sum(frame.kept for frame in patient.frames)
    said = len(patient.sentences)
    words = f"{said} sentence{'' if said == 1 else 's'}" if said else "no polyp reported"
    return f"{words}, {kept} of {len(patient.frames)} kept"


def _panel(number: int, patient: ShownPatient) -> str:
    heading = f"patient-{number}-name"
    frames = "".join(_frame(place, frame) for place, frame in enumerate(patient.frames, start=1))
    sentences = "".join(f"<li>{escape(sentence)}</li>" for sentence in patient.sentences)
    said = (
        f'<h4>Its report says</h4><ol class="sentences">{sentences}</ol>'
        if sentences
        else "<p>Its report describes no polyp.</p>"
    )
    return (
        f'<section class="patient" id="patient-{number}" aria-labelledby="{heading}">'
        f'<h3 id="{heading}">Patient {escape(patient.name)}</h3>{said}'
        f'<h4>Its frames</h4><ul class="frames">{frames}</ul>{_attention(patient)}</section>'
    )


def _frame(place: int, frame: ShownFrame) -> str:
    truth = {-1: "no polyp", -2: "truth unknown"}.get(frame.polyp, f"● polyp {frame.polyp + 1}")
    words = f'<b class="polyp">{truth}</b>' if frame.polyp >= 0 else truth
    kept = ' <span class="badge">kept</span>' if frame.kept else ""
    alt = f"frame {place}, {truth}, probability {frame.probability:.2f}" + (
        ", kept" if frame.kept else ""
    )
    return (
        f"<li{' class=kept' if frame.kept else ''}>{_image(frame.jpeg, alt)}"
        f'<meter value="{frame.probability:.4f}" aria-hidden="true"></meter>'
        f"{place}: {frame.probability:.2f}{kept}<br>{words}</li>"
    )


def _attention(patient: ShownPatient) -> str:
    if patient.reads is None or patient.looks is None:
        return ""
    return _reading(
        "What each kept frame reads (columns add up to 1)", patient, patient.reads.T
    ) + _reading("What each sentence looks at (rows add up to 1)", patient, patient.looks)


def _reading(caption: str, patient: ShownPatient, weights: Float[np.ndarray, "l k"]) -> str:
    kept = [(n, frame) for n, frame in enumerate(patient.frames, start=1) if frame.kept]
    head = "".join(
        f'<th scope="col">{_image(frame.jpeg, "")}{n}'
        f"{f', polyp {frame.polyp + 1}' if frame.polyp >= 0 else ''}</th>"
        for n, frame in kept
    )
    lines = []
    for sentence, row in zip(patient.sentences, np.asarray(weights, float), strict=True):
        cells = "".join(
            f'<td style="background:rgba(0,114,178,{weight:.2f});'
            f'color:{"#fff" if weight > 0.9 else "#000"}">{weight:.2f}</td>'
            for weight in row
        )
        lines.append(f'<tr><th scope="row">{escape(sentence)}</th>{cells}</tr>')
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}">'
        f'<table class="reading"><caption>{escape(caption)}</caption>'
        f"<thead><tr><td></td>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _image(jpeg: bytes, alt: str) -> str:
    data = base64.b64encode(jpeg).decode("ascii")
    return f'<img loading="lazy" alt="{escape(alt)}" src="data:image/jpeg;base64,{data}">'
