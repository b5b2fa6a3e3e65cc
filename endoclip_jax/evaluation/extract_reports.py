"""A file of reports in, a file of extractions out; measures against a gold file; comparison.

Rows in are ``{"id", "report"}``, rows out ``{"id", …data/schema.json…, "bits", "union",
"case_type", "extractor"}``, in the same order, with ``fallback`` where the rules stand in for a
model and ``agrees`` where two extractors were compared.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from endoclip_jax.errors import UserError
from endoclip_jax.evaluation.extraction import extraction_measures
from endoclip_jax.records.attributes import attribute_bits, case_type, union_bits
from endoclip_jax.records.extraction.choice import Choice, destination, disagreement
from endoclip_jax.records.extraction.llm import Outcome
from endoclip_jax.records.extraction.rules import extract

_PROGRESS_EVERY_S = 10.0


@dataclass(frozen=True)
class Report:
    """One row of the input; ``id`` is text or a number and comes out as it went in."""

    id: str | int
    text: str


def extract_reports(
    reports_file: Path, out: Path, choice: Choice, gold_file: Path | None = None
) -> list[str]:
    """Reads all reports, writes ``out`` (whole or not at all), returns lines for the user.

    With the choice "both" the rows are the rules' and ``OUT.disagreements.jsonl`` holds, for a
    person to judge, each report on which the two differ.
    """
    reports = read_reports(reports_file)
    gold = _read_gold(gold_file) if gold_file else {}
    if choice.llm is not None:
        where = destination(choice.llm.base_url)
        print(f"reports go to {where}; answers are kept in {choice.llm.cache}", file=sys.stderr)
    outcomes = choice.read_all([report.text for report in reports], _progress())
    lines = _account(outcomes) if choice.llm is not None else []
    if choice.name == "both":
        rules = [Outcome(extract(report.text), "rules") for report in reports]
        found = [
            disagreement(rule.extraction, model)
            for rule, model in zip(rules, outcomes, strict=True)
        ]
        rows = [
            {**_row(report, outcome), "agrees": not differing}
            for report, outcome, differing in zip(reports, rules, found, strict=True)
        ]
        disagreements = out.with_name(out.name + ".disagreements.jsonl")
        _write(disagreements, list(_disagreements(reports, rules, outcomes, found)))
        lines.append(f"{sum(map(bool, found))} of {len(reports)} reports differ: {disagreements}")
    else:
        rows = [_row(report, out_) for report, out_ in zip(reports, outcomes, strict=True)]
        rules = []
    _write(out, rows)
    lines.insert(0, f"{len(rows)} reports, {_kinds(rows)}: {out}")
    if gold:
        lines += _judged(reports, rules, outcomes, gold)
    return lines


def read_reports(path: Path) -> list[Report]:
    """Reports of a JSONL file; UserError names the line that is none, or an id that is twice."""
    seen: set[str | int] = set()
    reports = []
    for number, row in _rows(path):
        name, text = row.get("id"), row.get("report")
        if not isinstance(name, str | int) or isinstance(name, bool) or not isinstance(text, str):
            raise UserError(f'{path} line {number} is no {{"id": …, "report": "…"}}')
        if name in seen:
            raise UserError(f"{path} line {number}: id {name!r} is there twice")
        seen.add(name)
        reports.append(Report(name, text))
    if not reports:
        raise UserError(f"{path} holds no reports")
    return reports


def measure_lines(title: str, measures: Mapping[str, Any]) -> list[str]:
    """The measures of `extraction_measures` as a table for a terminal."""
    names = {
        "parse_rate": "parsed",
        "presence_sensitivity": "polyp presence, sensitivity",
        "presence_specificity": "polyp presence, specificity",
        "case_type_accuracy": "case type",
        "items_relaxed": "items, relaxed TP/(TP+FP+FN)",
        "items_strict": "items, strict TP/(TP+FP+FN)",
    }
    lines = [f"{title} ({measures['reports']} reports)"]
    lines += [_line(name, measures[key]) for key, name in names.items()]
    micro = measures["micro"]
    lines += [_line(f"bits, micro {key}", micro[key]) for key in ("precision", "recall", "f1")]
    lines += [
        _line(f"bits, {aspect} F1", values["f1"]) for aspect, values in measures["aspects"].items()
    ]
    lines.append(_line("size off by a factor of ten", measures["unit_errors"]))
    lines.append(_line("evidence found in the report", measures["grounding"]))
    return lines


def _line(name: str, value: float | None) -> str:
    return f"  {name:<34}{'-' if value is None else format(value, '.4f'):>8}"


def _row(report: Report, outcome: Outcome) -> dict[str, Any]:
    extraction = outcome.extraction
    bits = [attribute_bits(polyp) for polyp in extraction["polyps"]]
    row = {
        "id": report.id,
        **extraction,
        "bits": [vector.tolist() for vector in bits],
        "union": union_bits(bits).tolist(),
        "case_type": case_type(extraction["polyps"]),
        "extractor": outcome.source,
    }
    if outcome.fallback:
        row["fallback"] = outcome.fallback
    return row


def _disagreements(
    reports: Sequence[Report],
    rules: Sequence[Outcome],
    outcomes: Sequence[Outcome],
    found: Sequence[list[str]],
) -> Iterator[dict[str, Any]]:
    for report, rule, model, differing in zip(reports, rules, outcomes, found, strict=True):
        if differing:
            yield {
                "id": report.id,
                "report": report.text,
                "differences": differing,
                "rules": rule.extraction,
                "llm": None if model.fallback else model.extraction,
            }


def _account(outcomes: Sequence[Outcome]) -> list[str]:
    """What the model did, in numbers."""
    total = len(outcomes)
    retried = sum(outcome.answers > 1 for outcome in outcomes)
    fell = [outcome.fallback for outcome in outcomes if outcome.fallback]
    silent = sum(reason.startswith("server: ") for reason in fell)
    answers = sum(outcome.answers for outcome in outcomes)
    seconds = sum(outcome.seconds for outcome in outcomes)
    lines = [
        f"model: {answers} answers, {seconds / max(total, 1):.1f} s a report, "
        f"{answers - sum(outcome.asked for outcome in outcomes)} answers from the cache",
        f"model: {retried} of {total} reports needed a correction, {len(fell)} fell back to the "
        f"rules, {sum(outcome.reworded for outcome in outcomes)} had a description written anew",
    ]
    if silent:
        lines.append(f"model: {silent} reports got no answer; run again to ask for them again")
    return lines


def _judged(
    reports: Sequence[Report],
    rules: Sequence[Outcome],
    outcomes: Sequence[Outcome],
    gold: Mapping[Any, Mapping],
) -> list[str]:
    """Measures of each reader there was; a model's refused answers count as not parsed."""
    chosen = [place for place, report in enumerate(reports) if report.id in gold]
    if not chosen:
        raise UserError("no id of the gold file is among the reports")
    lines = []
    if len(chosen) < len(gold):
        lines.append(f"{len(gold) - len(chosen)} of {len(gold)} gold reports are not among these")
    readers: dict[str, list[dict | None]] = {}
    modelled = any(outcome.source == "llm" or outcome.fallback for outcome in outcomes)
    if rules or not modelled:
        readers["rules"] = [outcome.extraction for outcome in rules or outcomes]
    if modelled:
        readers["model"] = [None if out.fallback else out.extraction for out in outcomes]
    if any(outcome.fallback for outcome in outcomes):
        readers["model, rules where it failed"] = [outcome.extraction for outcome in outcomes]
    for title, extractions in readers.items():
        measures = extraction_measures(
            [extractions[place] for place in chosen],
            [gold[reports[place].id] for place in chosen],
            [reports[place].text for place in chosen],
        )
        lines += measure_lines(title, measures)
    return lines


def _read_gold(path: Path) -> dict[Any, Mapping]:
    """Extractions by id; a row holds one under ``gold`` or is one itself."""
    gold: dict[Any, Mapping] = {}
    for number, row in _rows(path):
        extraction = row.get("gold", row)
        if "id" not in row or not isinstance(extraction, dict) or "polyps" not in extraction:
            raise UserError(f"{path} line {number} holds no gold extraction with an id")
        gold[row["id"]] = extraction
    return gold


def _rows(path: Path) -> Iterator[tuple[int, dict]]:
    try:
        lines = path.read_text("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as UTF-8 text ({error})") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(f"{path} line {number} is not JSON ({error})") from error
        if not isinstance(row, dict):
            raise UserError(f"{path} line {number} is not a JSON object")
        yield number, row


def _write(path: Path, rows: Sequence[Mapping]) -> None:
    temporary = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8", errors="backslashreplace") as file:
            for row in rows:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error})") from error


def _kinds(rows: Sequence[Mapping]) -> str:
    kinds = [row["case_type"] for row in rows]
    return ", ".join(f"{kinds.count(kind)} {kind}" for kind in ("negative", "single", "multi"))


def _progress():
    """Prints to standard error how many reports are done, every ten seconds and in the end."""
    printed = time.monotonic()

    def show(done: int, total: int) -> None:
        nonlocal printed
        now = time.monotonic()
        if done == total or now - printed >= _PROGRESS_EVERY_S:
            printed = now
            print(f"extraction: {done}/{total} reports", file=sys.stderr, flush=True)

    return show
