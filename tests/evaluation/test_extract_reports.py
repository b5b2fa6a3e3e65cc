"""launch/extract.py as a person runs it, and the files it reads and writes."""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from chat_server import Reply, honest, serving

from endoclip_jax.errors import UserError
from endoclip_jax.evaluation.extract_reports import extract_reports, read_reports
from endoclip_jax.records.attributes import attribute_bits
from endoclip_jax.records.extraction import extract
from endoclip_jax.records.extraction.choice import Choice, add_flags, from_flags
from endoclip_jax.records.extraction.compare import differences
from endoclip_jax.records.extraction.llm import LLMSettings

ROOT = Path(__file__).parent.parent.parent
GOLD = ROOT / "tests/records/data/reports_gold.jsonl"
REPORTS = {
    "a": "Findings: A 4 mm sessile polyp in the caecum and a 12 mm polyp in the rectum.",
    "b": "检查所见:全结肠未见息肉。",
    7: "Findings: A 9 mm pedunculated red polyp in the sigmoid colon.",
}


@pytest.fixture
def reports_file(tmp_path):
    path = tmp_path / "in.jsonl"
    write(path, [{"id": name, "report": text} for name, text in REPORTS.items()])
    return path


def write(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


def rows_of(path):
    return [json.loads(line) for line in path.read_text("utf-8").split("\n")[:-1]]


def command(*arguments):
    return [sys.executable, str(ROOT / "launch/extract.py"), *map(str, arguments)]


def launch(*arguments, cwd, code=0):
    done = subprocess.run(command(*arguments), cwd=cwd, capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def model(server, folder):
    return Choice("llm", LLMSettings(server.url, "m", folder / "cache", timeout_s=5, pause_s=0.001))


def test_rows_out(reports_file, tmp_path):
    out = tmp_path / "out.jsonl"
    done = launch(f"--reports={reports_file}", f"--out={out}", f"--gold={GOLD}", cwd="/", code=2)
    assert done.stderr.strip() == "error: no id of the gold file is among the reports"
    done = launch(f"--reports={reports_file}", f"--out={out}", cwd="/")
    assert "3 reports, 1 negative, 1 single, 1 multi" in done.stdout
    rows = rows_of(out)
    assert [row["id"] for row in rows] == ["a", "b", 7]
    assert [row["case_type"] for row in rows] == ["multi", "negative", "single"]
    for row, report in zip(rows, REPORTS.values(), strict=True):
        extraction = extract(report)
        assert {key: row[key] for key in extraction} == extraction
        bits = [attribute_bits(polyp) for polyp in extraction["polyps"]]
        assert row["bits"] == [vector.tolist() for vector in bits]
        union = np.any(bits, axis=0) if bits else np.zeros(40)
        assert row["union"] == union.astype(int).tolist()
        assert row["extractor"] == "rules"
        assert "fallback" not in row


def test_the_gold_measures_are_printed(tmp_path):
    out = tmp_path / "out.jsonl"
    lines = extract_reports(GOLD, out, Choice(), GOLD)
    values = {line[:36].strip(): line[36:].strip() for line in lines[2:]}
    assert lines[1] == "rules (10 reports)"
    assert values["items, strict TP/(TP+FP+FN)"] == "1.0000"
    assert values["bits, micro f1"] == "1.0000"
    assert values["size off by a factor of ten"] == "0.0000"


def test_what_a_model_read_and_what_the_rules_did_for_it(reports_file, tmp_path):
    def half(request):
        return Reply("no") if "9 mm" in request.report else honest(request)

    gold = tmp_path / "gold.jsonl"
    write(gold, [{"id": name, "gold": extract(text)} for name, text in REPORTS.items()])
    out = tmp_path / "out.jsonl"
    with serving(half) as server:
        lines = extract_reports(reports_file, out, model(server, tmp_path), gold)
    rows = rows_of(out)
    assert [row["extractor"] for row in rows] == ["llm", "llm", "rules"]
    assert rows[2]["fallback"].startswith("refused: ")
    assert rows[2]["case_type"] == "single"
    text = "\n".join(lines)
    assert "5 answers" in text
    assert "1 of 3 reports needed a correction, 1 fell back to the rules" in text
    parsed = [line.split()[-1] for line in lines if line.startswith("  parsed")]
    assert parsed == ["0.6667", "1.0000"]  # the model alone, then with the rules behind it
    assert "model, rules where it failed (3 reports)" in lines


def test_both_write_down_where_they_differ(reports_file, tmp_path):
    def smaller(request):
        extraction = json.loads(honest(request).content)
        for polyp in extraction["polyps"][1:]:
            polyp["attributes"]["colour"] = ["pale_whitish"]
            polyp["location"] = ["cecum"]
        return Reply(json.dumps(extraction)) if "9 mm" not in request.report else Reply("no")

    out = tmp_path / "out.jsonl"
    with serving(smaller) as server:
        choice = Choice("both", model(server, tmp_path).llm)
        lines = extract_reports(reports_file, out, choice)
    rows = rows_of(out)
    assert [row["agrees"] for row in rows] == [False, True, False]
    assert {row["extractor"] for row in rows} == {"rules"}
    differing = rows_of(tmp_path / "out.jsonl.disagreements.jsonl")
    assert [row["id"] for row in differing] == ["a", 7]
    assert differing[0]["differences"] == [
        "polyp 2 location: ['rectum'] or ['cecum']",
        "polyp 2 colour: [] or ['pale_whitish']",
    ]
    assert differing[0]["rules"] == extract(REPORTS["a"])
    assert differing[0]["report"] == REPORTS["a"]
    assert "was not used" in differing[1]["differences"][0]
    assert differing[1]["llm"] is None
    assert any(line.startswith("2 of 3 reports differ") for line in lines)


def test_a_lesion_that_only_one_of_two_has():
    one, two = extract(REPORTS[7]), extract(REPORTS["a"])
    assert differences(one, one) == []
    only = [line for line in differences(one, two) if line.startswith("only the second has: A")]
    assert len(only) == 1


def test_killed_in_the_middle_it_asks_for_nothing_twice(tmp_path):
    reports = [f"Findings: A {mm} mm sessile polyp in the rectum." for mm in range(1, 11)]
    write(tmp_path / "in.jsonl", [{"id": i, "report": text} for i, text in enumerate(reports)])
    out = tmp_path / "out.jsonl"
    hold, full = threading.Event(), threading.Event()
    held = []

    def wrong_at_first(request):
        number = [id(other) for other in server.requests].index(id(request))
        if not hold.is_set() and number >= 7:
            held.append(f"{request.report}#{request.turn}")
            if len(held) == 2:
                full.set()
            hold.wait(60)
        return honest(request) if request.turn else Reply('{"language": "en"}')

    with serving(wrong_at_first) as server:
        line = command(
            f"--reports={tmp_path / 'in.jsonl'}", f"--out={out}", "--extractor=llm",
            f"--llm.base_url={server.url}", "--llm.model=m", "--llm.concurrency=2",
        )  # fmt: skip
        with subprocess.Popen(line, cwd="/", stderr=subprocess.DEVNULL) as process:
            # Two requests wait, so the two workers have stored whatever was answered before.
            assert full.wait(100)
            os.kill(process.pid, signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        assert not out.exists()
        answered = set(server.asked) - set(held)
        assert len(answered) == 7
        before = len(server.requests)
        hold.set()
        done = launch(*line[2:], cwd="/")
        asked_again = server.asked[before:]
    assert not answered & set(asked_again)
    assert len(asked_again) == len(set(asked_again)) == 20 - 7
    assert "20 answers" in done.stdout
    assert "7 answers from the cache" in done.stdout
    assert [row["extractor"] for row in rows_of(out)] == ["llm"] * 10
    assert (out.with_name("out.jsonl.private").stat().st_mode & 0o077) == 0


def test_nothing_is_written_when_nobody_answers(reports_file, tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
        choice = Choice("llm", LLMSettings(url, "m", tmp_path / "cache"))
        with pytest.raises(UserError, match="nothing answers at"):
            extract_reports(reports_file, tmp_path / "out.jsonl", choice)
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--extractor=llm"], "needs --llm.base_url and --llm.model"),
        (["--llm.model=m"], "--llm.model needs --extractor=llm"),
        (
            ["--extractor=llm", "--llm.base_url=http://x", "--llm.model=m", "--llm.timeout=0"],
            "zero",
        ),
    ],
)
def test_flags_that_do_not_go_together(flags, message):
    parser = argparse.ArgumentParser()
    add_flags(parser)
    with pytest.raises(UserError, match=message):
        from_flags(parser.parse_args(flags), Path("private"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no reports"),
        ('{"id": 1, "report": "x"}\n{', "line 2 is not JSON"),
        ("[1]", "line 1 is not a JSON object"),
        ('{"id": 1}', "line 1 is no"),
        ('{"report": "x"}', "line 1 is no"),
        ('{"id": 1, "report": "x"}\n\n{"id": 1, "report": "y"}', "line 3: id 1 is there twice"),
    ],
)
def test_files_that_hold_no_reports(tmp_path, text, message):
    path = tmp_path / "in.jsonl"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_reports(path)


def test_reports_with_odd_characters(tmp_path):
    path, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    text = "Findings: A 4 mm polyp\u2028in the rectum \ud800."
    path.write_text("\ufeff" + json.dumps({"id": "x", "report": text}) + "\n", "utf-8")
    with serving() as server:
        extract_reports(path, out, model(server, tmp_path))
    (row,) = rows_of(out)
    assert row["polyps"][0]["size_mm_max"] == 4
