from __future__ import annotations

import errno
import hashlib
import json
import os
import resource
import stat
import struct
import subprocess
import sys
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
import simplejpeg
import tensorflow_datasets as tfds
from stored import read_record
from tensorflow_datasets.proto import tf_example_pb2
from threadpoolctl import threadpool_info, threadpool_limits

from endoclip_jax.errors import UserError
from endoclip_jax.records.frames import StoredImage
from endoclip_jax.shards import work, writer
from endoclip_jax.shards.index import CARD_FILE, Index
from endoclip_jax.shards.prepare import prepare
from endoclip_jax.shards.tfrecord import scan_shard

SALT = b"0123456789abcdef0123456789abcdef"
ROOT = Path(__file__).resolve().parents[2]


def prepared(records, out, **options):
    options = {"salt": SALT, "workers": 1, "records_per_shard": 3, "progress": False} | options
    return prepare(records, out, **options)


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_the_bytes_do_not_depend_on_the_number_of_workers(records, tmp_path):
    folder = records()
    one = prepared(folder, tmp_path / "one").card
    two = prepared(folder, tmp_path / "two", workers=2).card
    assert one == two
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    for shard in one["shards"]:
        raw = (tmp_path / "one" / shard["name"]).read_bytes()
        assert shard["sha256"] == hashlib.sha256(raw).hexdigest() and shard["bytes"] == len(raw)


def test_products_of_a_frame_take_one_thread(records, tmp_path, monkeypatch):
    """With more, they wait for one another: twice the processor time at 1,280 pixels."""
    threads = []

    def noting(*arguments, **settings):
        threads.extend(x["num_threads"] for x in threadpool_info() if x["user_api"] == "blas")
        return writer.write_block(*arguments, **settings)

    monkeypatch.setattr(work, "write_block", noting)
    with threadpool_limits(2, user_api="blas"):
        prepare(records(), tmp_path / "one", workers=1, progress=False)
        after = {x["num_threads"] for x in threadpool_info() if x["user_api"] == "blas"}
    assert set(threads) == {1} and after == {2}


def test_the_salt_decides_the_hashes_and_is_kept(records, tmp_path):
    folder = records()
    first = prepared(folder, tmp_path / "a", salt=None).card["fingerprint"]
    other = prepared(folder, tmp_path / "b", salt=None).card["fingerprint"]
    assert first != other
    salt = bytes.fromhex((tmp_path / "a.private" / "salt").read_text())
    assert prepared(folder, tmp_path / "c", salt=salt).card["fingerprint"] == first
    with pytest.raises(UserError, match="salt given is not the one"):
        prepared(folder, tmp_path / "a", salt=SALT)
    (tmp_path / "a").rename(tmp_path / "moved away")  # as a data set of another schema has to be
    assert prepared(folder, tmp_path / "a", salt=None).card["fingerprint"] == first


def test_rows_and_frames_are_all_accounted_for(records, tmp_path, lines):
    folder = records(13, pathology={6: "[9]"})
    (folder / "exam-1" / "secret-1.jpg").write_bytes(b"broken")
    (folder / "exam-3" / "report.txt").write_text("")
    (folder / "exam-4" / "report.txt").unlink()
    for image in (folder / "exam-5").glob("*.jpg"):
        image.unlink()
    for image in (folder / "exam-7").glob("*.jpg"):
        image.write_bytes(image.read_bytes()[:200])
    with (folder / "records.csv").open("a") as manifest:
        manifest.write("PATIENT9,EXAM0,exam-0/report.txt,exam-0,\r\n")
        manifest.write("PATIENT9,EXAM99,../../x,exam-0,\r\n")
    summary = prepared(folder, tmp_path / "out")
    count = summary.card["accounting"]
    assert count["rows_in"] == 15 and count["records"] == 8 and count["records_rejected"] == 7
    assert count["frames_in"] == 13 * 3 - 3 + 3 + 3
    assert count["frames"] == 8 * 3 - 1 and count["frames_rejected"] == 1
    assert count["frames_of_rejected_records"] == 3 * 4 + 3 + 3
    rejects = lines(tmp_path / "out" / "rejects.jsonl")
    found = {(row["row"], row["kind"], row["ordinal"]): row["reason"] for row in rejects}
    assert found == {
        (2, "frame", 1): "broken image",
        (4, "record", None): "empty report",
        (5, "record", None): "report missing",
        (6, "record", None): "no images",
        (7, "record", None): "unknown Vienna class (not 1 to 5)",
        (8, "record", None): "no image can be read",
        (14, "record", None): "duplicate examination id (first in row 1)",
        (15, "record", None): "path leaves the records folder",
    }
    assert sum(summary.card["reject_reasons"].values()) == 8
    index = Index.open(tmp_path / "out")
    (row,) = (r for r in index.rows() if len(index.frame_rows(r)) == 2)
    assert index.frames["ordinal"][index.frame_rows(row)].tolist() == [0, 2]
    assert "records: 15 in = 8 stored + 7 rejected" in summary.lines()


def test_nothing_that_identifies_a_person_is_stored(records, tmp_path, lines):
    folder = records()
    (folder / "exam-2" / "secret-0.jpg").write_bytes(b"broken")
    prepared(folder, tmp_path / "out")
    for name, raw in contents(tmp_path / "out").items():
        for secret in (b"PATIENT", b"EXAM", b"Jane", b"Roe", b"secret", b"2019", b"exam-"):
            assert secret not in raw, (name, secret)
    private = tmp_path / "out.private"
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    for path in private.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    (reject,) = lines(private / "rejects_raw.jsonl")
    assert reject["raw"].endswith("exam-2/secret-0.jpg") and reject["exam_id"] == "EXAM2"
    identities = lines(private / "ids.jsonl")
    index = Index.open(tmp_path / "out")
    assert {row["exam"] for row in identities} == {e.decode() for e in index.records["exam"]}
    first = min(identities, key=lambda row: row["row"])
    assert first["patient_id"] == "PATIENT0"
    assert first["files"] == ["secret-0.jpg", "secret-1.jpg", "secret-2.jpg"]


def test_near_duplicates_are_those_of_bits_compared_one_by_one():
    rng = np.random.default_rng(0)
    bases = rng.integers(0, 2, (3, 144)).astype(bool)
    frames = []
    for ordinal in range(40):
        flipped = np.zeros(144, bool)
        flipped[rng.choice(144, rng.integers(0, 12), replace=False)] = True
        image = StoredImage(b"", False, False, bases[rng.integers(3)] ^ flipped)
        frames.append(writer.StoredFrame(ordinal, image, -1, bool(rng.random() < 0.1)))
    kept, expected = [], []
    for frame in [f for f in frames if f.indicative] + [f for f in frames if not f.indicative]:
        twins = [
            other.ordinal
            for other in kept
            if np.sum(other.image.perceptual != frame.image.perceptual) <= 8
        ]
        if twins and not frame.indicative:
            expected.append((frame.ordinal, twins[0]))
        else:
            kept.append(frame)
    assert 10 < len(expected) < 38
    assert writer.near_duplicates(frames) == sorted(expected)


def test_near_duplicates_are_counted_and_dropped_on_request(records, tmp_path, lines):
    folder = records(4, frame_labels={1: "exam-1/labels.csv"})
    for exam in ("exam-0", "exam-1"):
        twin = folder / exam / "secret-2.jpg"
        twin.write_bytes((folder / exam / "secret-0.jpg").read_bytes())
    (folder / "exam-1" / "labels.csv").write_text(
        "file,polyp,polyp_index,indicative\nsecret-0.jpg,1,0,0\nsecret-2.jpg,1,0,1\n"
    )
    counted = prepared(folder, tmp_path / "counted").card
    assert counted["frames"]["near_duplicates"] == 2 and counted["accounting"]["frames"] == 12
    pairs = [row["duplicates"] for row in lines(tmp_path / "counted" / "flags.jsonl")]
    assert sorted(pairs) == [[[0, 2]], [[2, 0]]]  # the most indicative frame is the one to keep
    dropped = prepared(folder, tmp_path / "dropped", drop_duplicates=True).card
    assert dropped["accounting"]["frames"] == 10 and dropped["frames"]["near_duplicates"] == 0
    assert dropped["reject_reasons"] == {
        "near-duplicate of frame 0": 1, "near-duplicate of frame 2": 1
    }  # fmt: skip


def test_the_page_says_what_the_card_says_and_needs_nothing_else(records, tmp_path):
    card = prepared(records(), tmp_path / "out").card
    page = (tmp_path / "out" / "card.html").read_text()
    assert card["fingerprint"] in page and page.count("<svg") >= 5
    assert not any(word in page for word in ("http", "src=", "href=", "url(", "<script"))
    for shard in card["shards"]:
        assert shard["name"] in page and shard["sha256"][:16] in page


def test_ten_independent_lines_read_the_shards(records, tmp_path):
    """As TFRecord is specified: length, its CRC, bytes, their CRC; the Example by protobuf."""
    card = prepared(records(), tmp_path / "out").card
    for shard in card["shards"]:
        raw, found = (tmp_path / "out" / shard["name"]).read_bytes(), 0
        while raw:
            (length,) = struct.unpack("<Q", raw[:8])
            for data, crc in ((raw[:8], raw[8:12]), (raw[12 : 12 + length], raw[12 + length :])):
                value = google_crc32c.value(data)
                masked = ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF
                assert struct.unpack("<I", crc[:4])[0] == masked
            example = tf_example_pb2.Example.FromString(raw[12 : 12 + length])
            assert len(example.features.feature["frame/encoded"].bytes_list.value) == 3
            raw, found = raw[16 + length :], found + 1
        assert found == shard["records"]


def test_what_the_report_says_is_stored(records, tmp_path):
    prepared(records(4), tmp_path / "out", splits=(1, 0, 0))
    index = Index.open(tmp_path / "out")
    assert index.records["has_polyp"].tolist() == [1, 1, 0, 1]
    assert index.records["item_count"].tolist() == [1, 2, 0, 1]
    assert index.card["languages"] == {"en": 3, "zh": 1}
    assert index.card["splits"]["train"]["multi"] == 1
    names = np.array(index.card["attributes"]["names"])
    assert "sessile" in " ".join(names[index.items["bits_text"][0] == 1])
    assert "6 mm" in index.description(0)
    assert b"6 mm" in read_record(index, 0)["report/diagnostic"][0]


def test_polyps_find_their_items_and_frames(records, tmp_path):
    folder = records(
        4,
        pathology={0: "[3]", 1: "[1, 4]", 3: "[1, 1]"},
        frame_labels={1: "exam-1/labels.csv"},
        split=dict.fromkeys(range(4), "train"),
    )
    (folder / "exam-1" / "labels.csv").write_text(
        "file,polyp,polyp_index,indicative\n"
        "secret-0.jpg,1,1,0\nsecret-1.jpg,0,,\nsecret-2.jpg,1,1,1\n"
    )
    prepared(folder, tmp_path / "out", records_per_shard=2)
    index = Index.open(tmp_path / "out")
    assert index.polyps.tolist() == [
        (0, 0, 3, -1),
        (1, 0, 1, -1), (1, 1, 4, 5),  # the marked frame, third of the second record
        (3, -1, 1, -1), (3, -1, 1, -1),  # two classes, one polyp in the report
    ]  # fmt: skip
    assert index.frames["polyp"].tolist() == [-2, -2, -2, 1, -1, 1] + [-2] * 6
    example = read_record(index, 1)
    assert example["polyp/frame"] == [-1, 2] and example["polyp/vienna"] == [1, 4]


def test_the_split_column_overrides_the_hash(records, tmp_path):
    column = {i: ("train", "validation", "test")[i % 6 // 2] for i in range(12)}
    prepared(records(12, split=column), tmp_path / "out")
    index = Index.open(tmp_path / "out")
    assert [len(index.rows(s)) for s in ("train", "validation", "test")] == [4, 4, 4]
    with pytest.raises(UserError, match="row 1 and row 2 is in the splits train and test"):
        prepared(records(12, "leak", split={0: "train", 1: "test"}), tmp_path / "no")
    assert not (tmp_path / "no").exists() and not (tmp_path / "no.private").exists()


def test_a_patient_is_in_one_split_and_keeps_it_when_the_data_grow(records, tmp_path):
    def assignment(number, name):
        out = tmp_path / f"{name}.out"
        prepared(records(number, name), out, splits=(2, 1, 1))
        rows = Index.open(out).records[["patient", "split"]]
        assigned = {patient: split for patient, split in rows.tolist()}
        assert len(set(rows.tolist())) == len(assigned)
        return assigned

    small, large = assignment(8, "small"), assignment(20, "large")
    assert small.items() <= large.items() and len(set(large.values())) > 1


def test_tfds_lists_and_decodes_the_shards(records, tmp_path):
    folder = records(12, pathology={0: "[3]"})
    prepared(folder, tmp_path / "out")
    builder = tfds.builder_from_directory(tmp_path / "out")
    index = Index.open(tmp_path / "out")
    for split, info in builder.info.splits.items():
        assert info.num_examples == len(index.rows(split))
        row = iter(index.rows(split))
        for path in info.filepaths:
            for _, payload in scan_shard(Path(path)):
                example = builder.info.features.deserialize_example_np(payload)
                record = next(row)
                assert example["patient"] == index.records["patient"][record]
                frames = index.frame_rows(record)
                assert [f.shape for f in example["frame"]["encoded"]] == [(64, 80, 3)] * len(frames)
                bits = np.reshape(example["item"]["attributes"], (-1, 40))
                assert (bits == index.items["bits_text"][index.item_rows(record)]).all()
                assert list(example["polyp"]["vienna"]) == (
                    index.polyps["vienna"][index.polyps["record"] == record].tolist()
                )
                keys = set(tf_example_pb2.Example.FromString(payload).features.feature)
                assert keys == set(read_record(index, record))
        assert next(row, None) is None
    assert "tensorflow" not in sys.modules


def test_running_again_says_done_and_other_input_is_refused(records, tmp_path):
    folder, out = records(), tmp_path / "out"
    first = prepared(folder, out)
    before = contents(out)
    again = prepared(folder, out, salt=None, workers=2)
    assert again.already_done and not first.already_done and again.card == first.card
    with pytest.raises(UserError, match="begun with long_side=512 and not 128"):
        prepared(folder, out, long_side=128)
    (folder / "exam-0" / "report.txt").write_text("Findings: normal.")
    with pytest.raises(UserError, match="other records"):
        prepared(folder, out)
    assert contents(out) == before


def test_an_interrupted_run_keeps_its_shards_and_ends_the_same(records, tmp_path, monkeypatch):
    folder, out = records(), tmp_path / "out"
    whole = prepared(folder, tmp_path / "whole").card
    real, written = writer.stored_image, []

    def interrupted(*arguments):
        written.append(1)
        if len(written) == 20:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(writer, "stored_image", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepared(folder, out)
    assert not (out / CARD_FILE).exists() and not list(out.glob("*.unfinished"))
    kept = contents(out)
    assert len(kept) == 2
    (out / "endoclip-train.tfrecord-00009-of-00010.1f.unfinished").write_bytes(b"left by a kill")
    assert prepared(folder, out).card == whole
    assert len(written) < 20 + 36  # finished shards are not done again
    assert contents(out).items() >= kept.items()


def test_a_kill_leaves_a_run_that_can_be_ended(records, tmp_path):
    folder, out = records(), tmp_path / "out"
    script = (
        "import os, signal\n"
        "from endoclip_jax.shards import writer\n"
        "from endoclip_jax.shards.prepare import prepare\n"
        "real, calls = writer.stored_image, []\n"
        "def killed(*arguments):\n"
        "    calls.append(1)\n"
        "    if len(calls) == 20: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return real(*arguments)\n"
        "writer.stored_image = killed\n"
        f"prepare({str(folder)!r}, {str(out)!r}, workers=1, records_per_shard=3,"
        f" salt={SALT!r}, progress=False)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False)
    assert killed.returncode == -9 and list(out.glob("*.unfinished"))
    prepared(folder, out)
    prepared(folder, tmp_path / "whole")
    assert contents(out) == contents(tmp_path / "whole")


def test_a_full_disk_is_told_and_finished_shards_stay(records, tmp_path, monkeypatch):
    folder, out = records(), tmp_path / "out"
    real, syncs = os.fsync, []

    def full(descriptor):
        syncs.append(1)
        if len(syncs) == 7:  # salt, plan, then shard and part by turns
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="the disk is full"):
        prepared(folder, out)
    assert len(contents(out)) == 2
    prepared(folder, out)
    monkeypatch.undo()
    prepared(folder, tmp_path / "whole")
    assert contents(out) == contents(tmp_path / "whole")


def test_a_file_that_cannot_grow_stops_the_launcher_and_the_next_run_goes_on(records, tmp_path):
    """A limit on the size of files stands for a full disk: the kernel refuses the same writes."""
    folder, out = records(9), tmp_path / "out"
    for k in range(3):  # the second shard is too large, the first is not
        noise = np.random.default_rng(k).integers(60, 255, (256, 256, 3), dtype=np.uint8)
        (folder / "exam-4" / f"secret-{k}.jpg").write_bytes(simplejpeg.encode_jpeg(noise, 90))
    script = str(ROOT / "launch" / "prepare.py")
    flags = [
        f"--records={folder}", f"--out={out}", "--workers=1", "--records_per_shard=3",
        "--splits=1,0,0",
    ]  # fmt: skip
    limited = (
        "import resource, runpy, sys; limit = int(sys.argv.pop(1)); sys.argv.pop(0);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit));"
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )

    def run(limit=resource.RLIM_INFINITY):
        return subprocess.run(
            [sys.executable, "-c", limited, str(limit), script, *flags],
            env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        )  # fmt: skip

    stopped = run(60_000)
    assert stopped.returncode == 2 and "Traceback" not in stopped.stderr
    assert "the disk is full" in stopped.stderr.splitlines()[-1]
    kept = contents(out)
    assert list(kept) == ["endoclip-train.tfrecord-00000-of-00003"]
    done = run()
    assert done.returncode == 0, done.stderr
    assert contents(out).items() >= kept.items()
    salt = bytes.fromhex((tmp_path / "out.private" / "salt").read_text())
    prepared(folder, tmp_path / "whole", salt=salt, splits=(1, 0, 0))
    assert contents(out) == contents(tmp_path / "whole")


def test_two_runs_at_once_are_refused(records, tmp_path, monkeypatch):
    folder, out = records(), tmp_path / "out"
    real = writer.stored_image

    def second_run(*arguments):
        with pytest.raises(UserError, match="another process is preparing"):
            prepared(folder, out)
        return real(*arguments)

    monkeypatch.setattr(writer, "stored_image", second_run)
    prepared(folder, out)


def test_bad_folders_are_one_sentence_and_overwrite_nothing(records, tmp_path):
    folder = records(3)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("mine")
    (tmp_path / "file").write_text("")
    bare = tmp_path / "bare" / "exam"
    bare.mkdir(parents=True)
    (bare / "report.txt").write_text("Normal.")
    for records_folder, out, message in (
        (tmp_path / "none", tmp_path / "o", "does not exist"),
        (foreign, tmp_path / "o", "neither records.csv nor"),
        (tmp_path / "bare", tmp_path / "o", r"no examination that can be used: no images \(1\)"),
        (folder, foreign, "not empty and no prepared data set"),
        (folder, tmp_path / "file", "is a file"),
        (folder, folder / "out", "contain one another"),
    ):
        with pytest.raises(UserError, match=message):
            prepared(records_folder, out)
        assert not (tmp_path / "o").exists() and not (tmp_path / "o.private").exists()
    assert contents(foreign) == {"thesis.txt": b"mine"}
    prepared(folder, tmp_path / "out")
    (tmp_path / "out.private").rename(tmp_path / "taken.private")
    with pytest.raises(UserError, match="put it back"):
        prepared(folder, tmp_path / "out")
    for options in ({"long_side": 5}, {"quality": 0}, {"splits": (1, -1, 1)}):
        with pytest.raises(UserError):
            prepared(folder, tmp_path / "o", **options)


def test_the_launcher_prints_the_accounting_from_any_folder(records, tmp_path):
    folder = records(4)

    def run(*flags):
        return subprocess.run(
            [sys.executable, str(ROOT / "launch" / "prepare.py"), *flags],
            cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    done = run(f"--records={folder}", "--out=out", "--workers=1", "--splits=1,0,0")
    assert done.returncode == 0, done.stderr
    assert "frames: 12 in = 12 stored + 0 rejected + 0 of rejected records" in done.stdout
    assert "12/12 frames" in done.stderr
    assert json.loads((tmp_path / "out" / CARD_FILE).read_text())["accounting"]["rows_in"] == 4
    wrong = run("--records=nowhere", "--out=new")
    assert wrong.returncode == 2 and "Traceback" not in wrong.stderr
    assert wrong.stderr.count("\n") == 1 and not (tmp_path / "new").exists()
