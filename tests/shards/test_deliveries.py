"""A data set that grows, shrinks, is made by an array job, and is stopped meanwhile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from numpy.lib import recfunctions
from stored import read_record

from endoclip_jax.errors import UserError
from endoclip_jax.shards import removal
from endoclip_jax.shards.index import CARD_FILE, TABLES, Index
from endoclip_jax.shards.prepare import prepare, prepare_task
from endoclip_jax.shards.reader import read_frame
from endoclip_jax.shards.removal import remove_patients

SALT = b"0123456789abcdef0123456789abcdef"
ROOT = Path(__file__).resolve().parents[2]
OPTIONS = {"salt": SALT, "workers": 1, "records_per_shard": 3, "progress": False}


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def everything(out):
    """What a reader gets of each examination, whatever the order."""
    index = Index.open(out)
    found = {}
    for row in index.rows():
        record = read_record(index, row)
        frames = [read_frame(index, frame) for frame in index.frame_rows(row)]
        assert frames == record["frame/encoded"]
        items = [index.description(item) for item in index.item_rows(row)]
        assert [item.encode() for item in items] == record["item/description"]
        first, polyp, number = index.records[["first_frame", "first_polyp", "num_polyps"]][row]
        polyps = index.polyps[polyp : polyp + number]
        assert (polyps["record"] == row).all()
        shown = polyps["frame"].tolist()
        assert [f - first if f >= 0 else -1 for f in shown] == record["polyp/frame"]
        found[index.records["exam"][row]] = (index.records["split"][row], record)
    return found


def balanced(card):
    count = card["accounting"]
    assert count["rows_in"] == count["records"] + count["records_rejected"]
    assert count["frames_in"] == (
        count["frames"] + count["frames_rejected"] + count["frames_of_rejected_records"]
    )


@pytest.fixture
def halves(records):
    """The first 8 of 14 examinations, all 14 (8 of them known by then), and what they hold."""
    labelled = {"pathology": {1: "[3, 1]", 9: "[1, 4]"}}
    small, large = records(8, "small", **labelled), records(14, "large", **labelled)
    (small / "exam-2" / "secret-1.jpg").write_bytes(b"broken")
    (large / "exam-2" / "secret-1.jpg").write_bytes(b"broken")
    return small, large


def test_a_delivery_is_added_and_what_was_there_stays(halves, tmp_path):
    small, large = halves
    out = tmp_path / "out"
    prepare(small, out, **OPTIONS)
    before = everything(out)
    with pytest.raises(UserError, match="--append"):
        prepare(large, out, **OPTIONS)
    summary = prepare(large, out, append=True, **OPTIONS)
    after = everything(out)
    assert before.items() <= after.items() and len(after) == 14
    balanced(summary.card)
    assert summary.card["accounting"]["rows_in"] == 22
    assert summary.card["reject_reasons"]["examination is in the data set already"] == 8
    prepare(large, tmp_path / "at-once", **OPTIONS)
    assert everything(tmp_path / "at-once") == after
    assert len(list(out.glob("*.tfrecord-*"))) == len(summary.card["shards"])
    again = prepare(small, out, **OPTIONS)
    assert again.already_done and again.card == summary.card
    manifest = small / "records.csv"  # fewer of the same: another delivery, and nothing new
    manifest.write_text("\n".join(manifest.read_text().splitlines()[:4]) + "\n")
    with pytest.raises(UserError, match="nothing to add"):
        prepare(small, out, append=True, **OPTIONS)
    assert everything(out) == after


class Interrupted(BaseException):
    """Nothing that is written catches it."""


@pytest.fixture
def interrupted(monkeypatch):
    """Calls a function and stops it at its n-th renaming of a file, as a kill would."""

    def call(number, function, *arguments, **options):
        real, renames = os.replace, []

        def replace(*paths):
            renames.append(paths)
            if len(renames) == number:
                raise Interrupted
            return real(*paths)

        with monkeypatch.context() as patch, pytest.raises(Interrupted):
            patch.setattr(os, "replace", replace)
            function(*arguments, **options)

    return call


def test_an_addition_that_is_stopped_can_be_ended(halves, tmp_path, interrupted):
    small, large = halves
    prepare(small, tmp_path / "whole", **OPTIONS)
    before = contents(tmp_path / "whole")
    prepare(large, tmp_path / "whole", append=True, **OPTIONS)
    for number in (1, 3, 9, 12):  # registering, in its shards, in the merge
        out = tmp_path / f"out-{number}"
        prepare(small, out, **OPTIONS)
        interrupted(number, prepare, large, out, append=True, **OPTIONS)
        if number <= 3:  # until the merge the old data set can be read
            assert contents(out).items() >= before.items()
        prepare(large, out, append=True, **OPTIONS)
        assert contents(out) == contents(tmp_path / "whole")


def test_removed_patients_are_gone_without_a_trace(halves, tmp_path):
    small, large = halves
    out, private = tmp_path / "out", tmp_path / "out.private"
    prepare(small, out, **OPTIONS)
    prepare(large, out, append=True, **OPTIONS)
    before = everything(out)
    index = Index.open(out)
    gone = {row["exam"] for row in _identities(private) if row["patient_id"] in PATIENTS}
    hashes = {row["patient"] for row in _identities(private) if row["patient_id"] in PATIENTS}
    assert len(gone) == 4 and len(index.records) == 14
    listed = tmp_path / "remove.txt"
    listed.write_text("PATIENT1\n\nPATIENT5\nNOBODY\n")
    removed = remove_patients(out, listed)
    assert (removed.asked, removed.found) == (3, 2)
    after = everything(out)
    assert after == {k: v for k, v in before.items() if k.decode() not in gone}
    balanced(removed.card)
    assert removed.card["accounting"]["rows_in"] == 22
    traces = [*gone, 'PATIENT1"', "PATIENT5", *hashes]
    for path in (*out.iterdir(), *private.rglob("*")):
        if path.is_file() and path.name != "removed.json":
            raw = path.read_bytes()
            assert not [trace for trace in traces if trace.encode() in raw], path
    builder = tfds.builder_from_directory(out)
    assert sum(split.num_examples for split in builder.info.splits.values()) == len(after)
    assert prepare(small, out, **OPTIONS).already_done
    more = small.parent / "more"
    (small.parent / "large").rename(more)
    lines = (more / "records.csv").read_text().splitlines()
    lines[1] = lines[1].replace("EXAM0", "EXAM77")
    lines[3] = lines[3].replace("EXAM2", "EXAM78")
    (more / "records.csv").write_text("\n".join(lines[:4]) + "\n")
    summary = prepare(more, out, append=True, **OPTIONS)
    assert summary.card["accounting"]["records"] == len(after) + 1
    assert b'PATIENT1"' not in (private / "rejects_raw.jsonl").read_bytes()


PATIENTS = ("PATIENT1", "PATIENT5")


def _identities(private):
    return [json.loads(line) for line in (private / "ids.jsonl").read_text().splitlines()]


def test_a_removal_that_is_stopped_is_ended_by_running_it_again(records, tmp_path, interrupted):
    folder, listed = records(10), tmp_path / "remove.txt"
    listed.write_text("PATIENT1\nPATIENT3\n")
    prepare(folder, tmp_path / "whole", **OPTIONS)
    remove_patients(tmp_path / "whole", listed)
    for number in (2, 3, 7):  # at the first shard, between it and its part, in the merge
        out = tmp_path / f"out-{number}"
        prepare(folder, out, **OPTIONS)
        interrupted(number, remove_patients, out, listed)
        assert not (out / CARD_FILE).exists()
        with pytest.raises(UserError, match="were being removed"):
            prepare(folder, out, **OPTIONS)
        remove_patients(out, listed)
        assert contents(out) == contents(tmp_path / "whole")


def of_schema_1(out):
    """Takes from the data set's parts what schema 2 added."""
    for path in (out.with_name(f"{out.name}.private") / "parts").iterdir():
        with np.load(path) as stored:
            arrays = dict(stored)
        fields = [name for name in TABLES["frames"].names if name not in ("height", "width")]
        arrays["frames"] = recfunctions.repack_fields(arrays["frames"][fields])
        with path.open("wb") as stream:
            np.savez(stream, **arrays)


def test_shards_of_another_schema_are_written_again(records, tmp_path):
    folder, out = records(7), tmp_path / "out"
    prepare(folder, out, **OPTIONS)
    before = contents(out)
    of_schema_1(out)
    (out / CARD_FILE).unlink()  # stopped before the merge
    prepare(folder, out, **OPTIONS)
    assert contents(out) == before


def test_from_a_data_set_of_another_schema_nobody_is_removed_but_from_a_new_one(
    halves, tmp_path, interrupted
):
    small, large = halves
    out, listed = tmp_path / "out", tmp_path / "remove.txt"
    listed.write_text("PATIENT1\nPATIENT5\n")
    prepare(small, out, **OPTIONS)
    prepare(large, out, append=True, **OPTIONS)
    interrupted(2, remove_patients, out, listed)
    of_schema_1(out)
    with pytest.raises(UserError, match=r"another version .* move out away"):
        remove_patients(out, listed)
    out.rename(tmp_path / "away")
    for folder in halves:
        prepare(folder, out, append=True, **OPTIONS | {"salt": None})
    private = tmp_path / "out.private"
    assert not {row["patient_id"] for row in _identities(private)} & {"PATIENT1", "PATIENT5"}
    assert prepare(large, out, **OPTIONS).already_done
    assert remove_patients(out, listed).found == 0


def test_an_array_job_and_a_merge_write_the_same(records, tmp_path):
    folder, out = records(14), tmp_path / "out"
    options = OPTIONS | {"salt": None}
    with ThreadPoolExecutor(3) as pool:  # each makes a salt; only the first's may count
        done = list(
            pool.map(lambda i: prepare_task(folder, out, task=i, tasks=3, **options), range(3))
        )
    assert sum(mine for mine, _ in done) == done[0][1] and not (out / CARD_FILE).exists()
    stamps = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert prepare(folder, out, **options).card["accounting"]["records"] == 14
    assert all((out / name).stat().st_mtime_ns == stamp for name, stamp in stamps.items())
    salt = bytes.fromhex((tmp_path / "out.private" / "salt").read_text())
    prepare(folder, tmp_path / "whole", **OPTIONS | {"salt": salt})
    assert contents(out) == contents(tmp_path / "whole")
    again = [prepare_task(folder, out, task=i, tasks=3, **options) for i in range(3)]
    assert again == done  # what is there, though there was nothing left to do
    with pytest.raises(UserError, match="tasks count from 0"):
        prepare_task(folder, out, task=3, tasks=3, **options)


def test_the_launcher_takes_every_flag_of_a_growing_data_set(records, tmp_path):
    first, second = records(6, "first"), records(8, "second")
    twin = first / "exam-0" / "secret-2.jpg"
    twin.write_bytes((first / "exam-0" / "secret-0.jpg").read_bytes())
    listed = tmp_path / "remove.txt"
    listed.write_text("PATIENT0\n")
    out = tmp_path / "out"
    settings = ("--workers=1", "--records_per_shard=2", "--drop_duplicates", "--drop_text")

    def run(*flags, code=0):
        done = subprocess.run(
            [sys.executable, str(ROOT / "launch" / "prepare.py"), f"--out={out}", *flags],
            env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == code and "Traceback" not in done.stderr, done.stderr
        return done.stdout + done.stderr

    for task in range(2):
        said = run(f"--records={first}", f"--task={task}", "--tasks=2", *settings)
        assert f"task {task} of 2" in said
    assert "6 in = 6 stored" in run(f"--records={first}", *settings)
    assert "give both, or neither" in run(f"--records={first}", "--task=1", code=2)
    assert "14 in = 8 stored + 6 rejected" in run(f"--records={second}", "--append", *settings)
    assert "1 of 1 patients" in run(f"--remove={listed}")
    card = json.loads((out / CARD_FILE).read_text())
    assert card["settings"]["drop_duplicates"] and card["settings"]["drop_text"]
    assert card["accounting"]["records"] == 6


def test_a_list_of_nobody_and_an_unfinished_data_set_are_refused(records, tmp_path):
    empty = tmp_path / "empty.txt"
    empty.write_text("\n")
    with pytest.raises(UserError, match="no finished data set"):
        remove_patients(tmp_path / "nothing", empty)
    prepare(records(4), tmp_path / "out", **OPTIONS)
    for file, message in ((empty, "names nobody"), (tmp_path / "none.txt", "cannot be read")):
        with pytest.raises(UserError, match=message):
            remove_patients(tmp_path / "out", file)
    assert Index.open(tmp_path / "out").rows().tolist() == np.arange(4).tolist()
    assert removal.REMOVED not in (tmp_path / "out" / "rejects.jsonl").read_text()
