"""Who reads the reports of a data set: a stand-in server and the rules, and what is kept."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from chat_server import Reply, honest, serving

from endoclip_jax.errors import UserError
from endoclip_jax.records.extraction.choice import Choice
from endoclip_jax.records.extraction.llm import LLMSettings
from endoclip_jax.records.extraction.llm_cache import AnswerCache, answer_key
from endoclip_jax.shards.index import Index
from endoclip_jax.shards.prepare import prepare, prepare_task
from endoclip_jax.shards.removal import remove_patients

SALT = b"0123456789abcdef0123456789abcdef"
OPTIONS = {"salt": SALT, "workers": 1, "records_per_shard": 3, "progress": False}
ROOT = Path(__file__).resolve().parents[2]


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def distinct_reports(folder):
    """Writes another report for every examination, so that each is a question of its own."""
    for number, path in enumerate(sorted(folder.glob("exam-*/report.txt")), 2):
        path.write_text(f"Findings: A {number} mm sessile polyp was found in the rectum.")


def model(server, out, name="llm", **changes):
    cache = out.with_name(out.name + ".private") / "llm_cache"
    settings = {"timeout_s": 5, "pause_s": 0.001, "tries": 2, "concurrency": 2} | changes
    return Choice(name, LLMSettings(server.url, "small", cache, **settings))


def clear_cut(request):
    """An answer that holds, and differs from what the rules read."""
    extraction = json.loads(honest(request).content)
    for polyp in extraction["polyps"]:
        polyp["attributes"]["margin"] = ["clear"]
    return Reply(json.dumps(extraction))


def test_the_model_reads_and_what_it_could_not_is_marked(records, tmp_path, lines):
    folder, out = records(6), tmp_path / "out"
    distinct_reports(folder)

    def answer(request):
        if " 3 mm" in request.report:
            return Reply("no JSON")
        if " 4 mm" in request.report:
            return Reply(status=500, body=b"")
        if " 5 mm" in request.report and request.turn == 0:
            return Reply("{}")
        return clear_cut(request)

    with serving(answer) as server:
        card = prepare(folder, out, extractor=model(server, out), **OPTIONS).card
        asked = len(server.requests)
        again = prepare(folder, out, extractor=model(server, out), **OPTIONS)
        assert again.already_done and len(server.requests) == asked
    assert card["extractor"]["name"] == "llm" and card["extractor"]["model"] == "small"
    assert card["extractor"]["fallback"]["name"] == "rules"
    assert card["extraction"]["readings"] == {
        "read_by_llm": 4, "read_by_rules": 2, "corrected": 2, "reworded": 0,
        "fallback_refused": 1, "fallback_server": 1, "compared": 0, "differing": 0,
    }  # fmt: skip
    assert any("4 by the model, 2 by rules" in line for line in again.lines())
    flags = [row for row in lines(out / "flags.jsonl") if row["fallback"]]
    assert sorted(row["fallback"] for row in flags) == ["refused", "server"]
    index = Index.open(out)
    clear = card["attributes"]["names"].index("margin.clear")
    fallen = {row["exam"] for row in flags}
    for row in index.rows():
        (item,) = index.item_rows(row)
        by_model = index.records["exam"][row].decode() not in fallen
        assert index.items["bits_text"][item][clear] == by_model
    reasons = [row.get("fallback") for row in lines(tmp_path / "out.private" / "ids.jsonl")]
    assert sum(bool(reason) for reason in reasons) == 2
    assert "fallback refused" in (out / "card.html").read_text()


def test_both_stores_what_the_rules_read_and_shows_where_the_model_differs(
    records, tmp_path, lines
):
    folder, out = records(6), tmp_path / "out"
    distinct_reports(folder)
    with serving(lambda r: clear_cut(r) if " 3 mm" in r.report else honest(r)) as server:
        summary = prepare(folder, out, extractor=model(server, out, "both"), **OPTIONS)
    prepare(folder, tmp_path / "rules", **OPTIONS)
    for shard in out.glob("*.tfrecord-*"):
        assert shard.read_bytes() == (tmp_path / "rules" / shard.name).read_bytes()
    (row,) = lines(tmp_path / "out.private" / "disagreements.jsonl")
    assert row["exam_id"] == "EXAM1" and "margin" in row["differences"][0]
    assert row["llm"]["polyps"][0]["attributes"]["margin"] == ["clear"]
    assert "differ on 1 of 6 reports" in "\n".join(summary.lines())
    assert summary.card["extractor"]["compared_with"]["model"] == "small"
    listed = tmp_path / "remove.txt"
    listed.write_text("PATIENT0\n")
    remove_patients(out, listed)
    assert lines(tmp_path / "out.private" / "disagreements.jsonl") == []
    assert not (tmp_path / "out.private" / "llm_cache").exists()


def test_answers_kept_elsewhere_go_with_their_patients(records, tmp_path, capsys):
    folder, out, cache = records(6), tmp_path / "out", tmp_path / "answers"
    distinct_reports(folder)
    for k in range(3):  # an examination that was read and then rejected
        (folder / "exam-3" / f"secret-{k}.jpg").write_bytes(b"no picture")
    other = cache / "ab" / "another data set's.json"
    with serving(lambda r: Reply("{}") if " 3 mm" in r.report else clear_cut(r)) as server:
        choice = model(server, out)
        choice = Choice("llm", replace(choice.llm, cache=cache))
        card = prepare(folder, out, extractor=choice, **OPTIONS).card
    other.parent.mkdir(exist_ok=True)
    other.write_text("{}")
    files = set(cache.rglob("*.json"))
    assert card["extraction"]["readings"]["fallback_refused"] == 1
    assert len(files) > 6 + 1  # exam 1's refused answers too
    listed = tmp_path / "remove.txt"
    listed.write_text("PATIENT0\nPATIENT1\n")
    remove_patients(out, listed)
    left = set(cache.rglob("*.json"))
    extractor = AnswerCache(cache)
    keys = {i: answer_key("small", 4096, (folder / f"exam-{i}/report.txt").read_text())
            for i in range(6)}  # fmt: skip
    assert [extractor.path(keys[i]) in files for i in range(6)] == [True] * 6
    assert left == {extractor.path(keys[4]), extractor.path(keys[5]), other}
    assert capsys.readouterr().err == ""
    cache.rename(tmp_path / "moved")
    listed.write_text("PATIENT2\n")
    with suppress(UserError):  # nobody is left
        remove_patients(out, listed)
    assert f"{cache}, where a model's answers" in capsys.readouterr().err


def test_a_data_set_has_one_extractor(records, tmp_path):
    folder, out = records(3), tmp_path / "out"
    more = records(5, "more")
    with serving() as server:
        prepare(folder, out, **OPTIONS)
        before = contents(out)
        for other in (model(server, out), model(server, out, "both")):
            for options in ({}, {"append": True}):
                with pytest.raises(UserError, match=r"begun with extractor=rules .* and not "):
                    prepare(more if options else folder, out, extractor=other, **OPTIONS, **options)
        assert contents(out) == before and not server.requests
        prepare(folder, tmp_path / "llm", extractor=model(server, tmp_path / "llm"), **OPTIONS)
        with pytest.raises(UserError, match=r"extractor=llm small .* and not rules"):
            prepare(folder, tmp_path / "llm", **OPTIONS)
        longer = model(server, tmp_path / "llm", max_tokens=9)
        with pytest.raises(UserError, match=r"and not llm small .* 9 tokens"):
            prepare(folder, tmp_path / "llm", extractor=longer, **OPTIONS)


def test_tasks_of_an_array_job_ask_for_their_own_reports(records, tmp_path):
    folder, out = records(9), tmp_path / "out"
    distinct_reports(folder)
    options = OPTIONS | {"splits": (1, 0, 0)}
    with serving(clear_cut) as server:
        choice = model(server, out)
        for task in range(2):
            prepare_task(folder, out, task=task, tasks=2, extractor=choice, **options)
            assert len(server.requests) == (6, 9)[task]
        prepare(folder, out, extractor=choice, **options)
        assert len(server.requests) == len(set(server.asked)) == 9
        whole = tmp_path / "whole"
        prepare(folder, whole, extractor=model(server, whole), **options | {"workers": 2})
    assert contents(out) == contents(whole)


def test_killed_in_the_middle_the_launcher_asks_for_nothing_twice(records, tmp_path):
    folder, out = records(8), tmp_path / "out"
    distinct_reports(folder)
    hold, full, held = threading.Event(), threading.Event(), []

    def answer(request):
        if not hold.is_set() and len(server.requests) > 5:
            held.append(request.report)
            full.set()
            hold.wait(100)
        return honest(request)

    with serving(answer) as server:
        line = [
            sys.executable, str(ROOT / "launch" / "prepare.py"), f"--records={folder}",
            f"--out={out}", "--workers=1", "--records_per_shard=3", "--splits=1,0,0",
            "--extractor=llm", f"--llm.base_url={server.url}", "--llm.model=m",
            "--llm.concurrency=1",
        ]  # fmt: skip
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        with subprocess.Popen(line, env=environment, stderr=subprocess.DEVNULL) as process:
            assert full.wait(100)
            os.kill(process.pid, signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        assert len(list(out.glob("*.tfrecord-*"))) == 1 and not (out / "dataset.json").exists()
        before = len(server.requests)
        hold.set()
        done = subprocess.run(
            line, env=environment, capture_output=True, text=True, check=False
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert sorted(server.requests[i].report for i in range(before, len(server.requests))) == (
            sorted([held[0], *(r for r in everything(folder) if r not in asked(server, before))])
        )
    assert "reports go to 127.0.0.1:" in done.stderr
    assert "8 by the model, 0 by rules" in done.stdout
    words = done.stdout + done.stderr
    assert not [secret for secret in ("PATIENT", "EXAM", "exam-", "secret-") if secret in words]


def everything(folder):
    return [path.read_text() for path in folder.glob("exam-*/report.txt")]


def asked(server, before):
    return {request.report for request in server.requests[:before]}


def test_a_server_that_is_not_there_is_one_sentence(records, tmp_path):
    done = subprocess.run(
        [
            sys.executable, str(ROOT / "launch" / "prepare.py"), f"--records={records(3)}",
            f"--out={tmp_path / 'out'}", "--extractor=llm", "--workers=1",
            "--llm.base_url=http://127.0.0.1:9/v1", "--llm.model=m",
        ],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "nothing answers at" in done.stderr.splitlines()[-1]
