"""The figures of all suites as one Markdown table, from their JSON alone.

`python launch/benchmark.py --suite=table` prints it; `--into=docs/performance.md` writes it between
that file's two marks. A goal is the project's; what is possible is a step of nothing but products,
as fast as torch's fastest (suite step). A suite that has not run has no rows.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from endoclip_jax.errors import UserError

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
_HEADER = ("work", "against", "ratio (quartiles)", "by processor time", "goal")
_STEP_GOALS = {  # (stage, peer) of a CPU
    ("stage1", "published"): "≥ 3.0",
    ("stage1", "shortcuts"): "≥ 1.8",
    ("stage2", "published"): "≥ 2.0",  # at 77 tokens the same as plain
    ("stage2", "plain"): "≥ 2.0",
}
_LOADER_GOALS = {"decoding": "≥ 0.9", "DataLoader, both augmented": "≥ 1.5"}
_LOADER_NAMES = {
    "decoding": "raw decode",
    "our decoding": "our decoding alone",
    "ours, augmented": "times as long, with the device's part on this processor",
    "DataLoader": "DataLoader, which augments; ours leaves it to the device",
    "DataLoader, our decoding": "DataLoader, neither augments",
}
_MEMORY_GOALS = {32_768: 60, 262_144: 350}  # pairs on 8 devices: MB
_LOSS_GOAL_FROM = 4_096  # pairs
Cells = tuple[str, ...]


def main(argv: Sequence[str], out: Path) -> int:
    """Prints the table, or puts it into a file; `out` is the default of `--results`."""
    parser = argparse.ArgumentParser(prog="benchmark.py --suite=table", description=__doc__)
    parser.add_argument("--results", type=Path, default=out, help="folder of the JSON files")
    parser.add_argument("--into", type=Path, help="file with the two marks")
    parser.add_argument("--goals", action="store_true", help="only rows that have a goal")
    options = parser.parse_args(argv)
    text = table(options.results, goals=options.goals)
    if options.into is None:
        print(text)
        return 0
    page = options.into.read_text()
    if BEGIN not in page or END not in page:
        raise UserError(f"{options.into} has no place for the table: write {BEGIN} and {END}")
    before, after = page.split(BEGIN)[0], page.split(END)[1]
    options.into.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")
    print(f"written into {options.into}")
    return 0


def table(folder: Path, *, goals: bool = False) -> str:
    """Rows of all suites found in `folder`, or those with a goal; then the runs and machines."""
    rows: list[Cells] = [_HEADER, ("---",) * len(_HEADER)]
    notes: list[str] = []
    machines: set[str] = set()
    for name, lines in _SUITES.items():
        for path in sorted(folder.glob(f"{name}*.json")):
            content = json.loads(path.read_text())
            rows += [cells for cells in lines(content) if not goals or cells[-1][0] in "≥≤<"]
            notes.append(f"- {path.stem}: {_run(content)}")
            machines.add(f"- machine: {_machine(content)}")
    if not notes:
        raise UserError(f"{folder} has no figures yet: python launch/benchmark.py --suite=all")
    text = "\n".join("| " + " | ".join(cells) + " |" for cells in rows)
    return "\n".join([text, "", *notes, *sorted(machines)])


def _machine(content: Mapping[str, Any]) -> str:
    versions = content["versions"]
    return (
        f"{content['hardware']}, torch {versions['torch']}, transformers {versions['transformers']}"
    )


def _run(content: Mapping[str, Any]) -> str:
    return (
        f"`{content['command']}`; commit {content['commit']}; load at the start "
        f"{content['load_at_start']} on {content['cores']} core(s)"
    )


def _step(content: Mapping[str, Any]) -> Iterator[Cells]:
    for row in content["rows"]:
        work = (
            f"{row['stage']} train step, {content['device']}, {content['size']}, batch "
            f"{row['batch']}, {row['text_length']} tokens, {row['dtype']}"
        )
        for name, peer in row["peers"].items():
            goal = _STEP_GOALS.get((row["stage"], name), "–")
            if content["device"] == "gpu":
                goal = "≥ 1.3"
            if "bound" in peer:
                most = f"at most {peer['bound']['wall']['median']:.2f} possible"
                goal = most if goal == "–" else f"{goal}; {most}"
            yield work, f"CLIPModel, {name}", *_both(peer["ratio"]), goal
        seconds = row["ours"]["wall"]["median"]
        share = "" if row["mfu"] is None else f", {100 * row['mfu']:.0f} % of the device's rate"
        pairs = f"{row['batch'] / seconds:,.1f} pairs/s"
        yield work, "–", f"{pairs}{share}", f"{row['flops_per_second'] / 1e9:,.0f} GFLOP/s", "–"


def _loader(content: Mapping[str, Any]) -> Iterator[Cells]:
    for row in content["rows"]:
        stored = row["stored"]
        work = (
            f"frame loader, {stored['width']:.0f}×{stored['height']:.0f} → {row['image_size']}, "
            f"{row['threads']} thread(s)"
        )
        for name, ratio in row["ratios"].items():
            against = _LOADER_NAMES.get(name, name)
            goal = _LOADER_GOALS.get(name, "–")
            yield work, against, *_both(ratio), goal
        yield work, "bytes of the frames", f"{row['bytes']['ratio']:.4f}", "–", "≤ 1.05"


def _score(content: Mapping[str, Any]) -> Iterator[Cells]:
    for row in content["rows"]:
        work = f"scoring pass, {content['size']}, {row['image_size']} px"
        yield work, "forward alone", *_both(row["ratio"]), "≥ 0.9"


def _open(content: Mapping[str, Any]) -> Iterator[Cells]:
    for row in content["rows"]:
        work = f"opening {row['records']:,} patients, {row['frames']:,} frames"
        seconds = row["open_seconds"]
        took = f"{1e3 * seconds['median']:.1f} ms ({1e3 * seconds['low']:.1f}–"
        took += f"{1e3 * seconds['high']:.1f})"
        memory = f"{row['memory_used'] / 1e6:.0f} MB resident"
        yield work, "–", took, memory, "< 1 s, < 100 MB"


def _prepare(content: Mapping[str, Any]) -> Iterator[Cells]:
    speed = content["speed"]
    source = f", from {speed['enlarged_to']} px" if speed["enlarged_to"] else ""
    alone = "decode, resize, encode alone"
    for name, what in (("ratio_frame", "a frame"), ("ratio_prepare", "all of it, one worker")):
        work = f"prepare, {what}{source}, long side {speed['long_side']}"
        yield work, alone, "–", _spread(speed[name]), "≥ 0.8"


def _loss(content: Mapping[str, Any]) -> Iterator[Cells]:
    devices = f"{content['devices']} device{'s' if content['devices'] > 1 else ''}"
    for row in content["time"]:
        work = f"streaming loss, {devices}, {row['target']}, {row['batch']:,} pairs"
        goal = "≤ 1.0" if row["batch"] >= _LOSS_GOAL_FROM else "–"
        yield work, "its time over dense's", *_both(row["ratio"]), goal
    for row in content["steps"]:
        work = f"stage2 train step with it, {content['size']}, batch {row['batch']}"
        goal = "≤ 1.01 on a GPU; this is a CPU"
        yield work, "its time over dense's", *_both(row["ratio"], 3), goal
    for row in content["memory"]:
        most = _MEMORY_GOALS.get(row["batch"])
        if row["implementation"] == "streaming" and most and content["devices"] == 8:
            work = f"its temporaries a device, {devices}, {row['target']}, {row['batch']:,} pairs"
            yield work, "–", f"{row['temporaries'] / 1e6:.1f} MB", "–", f"≤ {most} MB"


def _both(ratio: Mapping[str, Any], digits: int = 2) -> tuple[str, str]:
    return _spread(ratio["wall"], digits), _spread(ratio["cpu"], digits)


def _spread(values: Mapping[str, float], digits: int = 2) -> str:
    low, median, high = (f"{values[name]:.{digits}f}" for name in ("low", "median", "high"))
    return f"{median} ({low}–{high})"


_SUITES = {
    "step": _step,
    "loss": _loss,
    "loader": _loader,
    "prepare": _prepare,
    "score": _score,
    "open": _open,
}
