from __future__ import annotations

import json

import pytest

from endoclip_jax.errors import UserError
from endoclip_jax.records.manifest import Examination, FrameLabel, Reject, read_records


@pytest.fixture
def folder(tmp_path):
    """Two examinations' files without a manifest; nothing reads the images' content here."""
    for exam in ("e1", "e2"):
        (tmp_path / exam).mkdir()
        (tmp_path / exam / "report.txt").write_text("A polyp.")
        for name in ("f10.jpg", "f2.JPG", "f1.png", "notes.md"):
            (tmp_path / exam / name).write_bytes(b"x")
    return tmp_path


def manifest(folder, *rows, kind="csv"):
    columns = sorted({key for row in rows for key in row})
    if kind == "jsonl":
        text = "".join(json.dumps(row) + "\n" for row in rows)
    else:

        def cell(value):
            return '"' + str(value).replace('"', '""') + '"'

        lines = [",".join(cell(row.get(key, "")) for key in columns) for row in rows]
        text = "\n".join([",".join(columns), *lines]) + "\n"
    (folder / f"records.{kind}").write_text(text)


def row(exam="e1", patient="p1", **more):
    return {
        "patient_id": patient, "exam_id": exam, "report": "e1/report.txt", "images": "e1", **more
    }  # fmt: skip


def only(folder):
    (examination,) = read_records(folder)
    return examination


def test_folders_without_manifest_are_read_in_natural_order(folder):
    (folder / "e10").mkdir()
    (folder / "e10" / "report.txt").write_text("Normal.")
    (folder / "e10" / "a.png").write_bytes(b"x")
    examinations = list(read_records(folder))
    assert [e.exam_id for e in examinations] == ["e1", "e2", "e10"]
    assert [p.name for p in examinations[0].images] == ["f1.png", "f2.JPG", "f10.jpg"]
    assert examinations[0].report == "A polyp." and examinations[0].row == 1


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_every_column_is_read(folder, kind):
    (folder / "e1" / "labels.csv").write_text(
        "file,polyp,polyp_index,indicative\nf1.png,0,,\nf2.JPG,1,0,\nf10.jpg,1,0,1\n"
    )
    manifest(
        folder,
        row(report_text="Sessile polyp, 5 mm", pathology="[3, null]", split="test",
            frame_labels="e1/labels.csv", report=""),
        kind=kind,
    )  # fmt: skip
    exam = only(folder)
    assert isinstance(exam, Examination)
    assert exam.report == "Sessile polyp, 5 mm" and exam.pathology == (3, 0)
    assert exam.split == "test"
    assert exam.frame_labels == {
        0: FrameLabel(-1, False), 1: FrameLabel(0, False), 2: FrameLabel(0, True)
    }  # fmt: skip


def test_a_glob_names_images(folder):
    manifest(folder, row(images="e1/f1*"))
    assert [path.name for path in only(folder).images] == ["f1.png", "f10.jpg"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030"])
def test_reports_in_chinese_encodings(folder, encoding):
    (folder / "e1" / "report.txt").write_bytes("升结肠见一枚息肉".encode(encoding))
    manifest(folder, row())
    assert only(folder).report == "升结肠见一枚息肉"


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"patient_id": ""}, "no patient id"),
        ({"exam_id": ""}, "no examination id"),
        ({"report": "gone.txt"}, "report missing"),
        ({"report": "e1"}, "report unreadable"),
        ({"report": ""}, "empty report"),
        ({"report": "empty.txt"}, "empty report"),
        ({"report": "binary.txt"}, "no text in UTF-8, UTF-16 or GB18030"),
        ({"report": "../outside.txt"}, "path leaves the records folder"),
        ({"report": "/etc/hostname"}, "path leaves the records folder"),
        ({"report": "link.txt"}, "path leaves the records folder"),
        ({"images": ""}, "no images"),
        ({"images": "bare"}, "no images"),
        ({"images": "nowhere"}, "images folder missing"),
        ({"images": ".."}, "path leaves the records folder"),
        ({"images": "../*.jpg"}, "path leaves the records folder"),
        ({"images": "linked"}, "path leaves the records folder"),
        ({"pathology": "[9]"}, "unknown Vienna class"),
        ({"pathology": '["3"]'}, "unknown Vienna class"),
        ({"pathology": "3"}, "not a JSON list"),
        ({"pathology": "[3"}, "not a JSON list"),
        ({"split": "holdout"}, "unknown split"),
        ({"frame_labels": "e1/none.csv"}, "frame labels unreadable"),
        ({"frame_labels": "stray.csv"}, "name an image that is not there"),
        ({"frame_labels": "words.csv"}, "not a number"),
        ({"frame_labels": "negative.csv"}, "impossible polyp index"),
    ],
)
def test_a_bad_row_is_one_reject_with_its_reason(folder, change, reason):
    secret = folder.parent / "outside.txt"
    secret.write_text("secret")
    (folder / "empty.txt").write_text("  \n")
    (folder / "binary.txt").write_bytes(b"\xff\xfe\x00\x01\x02")
    (folder / "bare").mkdir()
    (folder / "linked").mkdir()
    (folder / "linked" / "a.jpg").symlink_to(secret)
    (folder / "link.txt").symlink_to(secret)
    (folder / "stray.csv").write_text("file,polyp,polyp_index\nother.png,1,0\n")
    (folder / "words.csv").write_text("file,polyp,polyp_index\nf1.png,yes,0\n")
    (folder / "negative.csv").write_text("file,polyp,polyp_index\nf1.png,1,-7\n")
    good = row("good", "p2", pathology="[]", split="train", frame_labels="")
    manifest(folder, row() | change, good)
    reject, kept = read_records(folder)
    assert isinstance(reject, Reject) and reason in reject.reason, reject
    assert isinstance(kept, Examination) and kept.row == 2
    for private in ("e1", "p1", "f1.png", "outside", "gone", "nowhere", "stray", "none.csv"):
        assert private not in reject.reason


def test_a_folder_whose_name_begins_alike_is_outside(folder):
    beside = folder.with_name(folder.name + "-more")
    beside.mkdir()
    (beside / "report.txt").write_text("Findings: normal.")
    (beside / "a.jpg").write_bytes(b"")
    (folder / "linked").symlink_to(beside)
    manifest(
        folder,
        row(report=f"../{beside.name}/report.txt"),
        row("e2", "p2", images=f"../{beside.name}"),
        row("e3", "p3", images="linked"),
        row("e4", "p4", images=str(beside)),
        row("e5", "p5", images="linked/*.jpg"),
        row("e6", "p6", images="*/a.jpg"),
    )
    assert {reject.reason for reject in read_records(folder)} == {"path leaves the records folder"}


def test_a_link_that_leads_to_itself_is_missing(folder):
    (folder / "loop").symlink_to("loop")
    manifest(folder, row(images="loop"), row("e2", "p2", report="loop"))
    reasons = [reject.reason for reject in read_records(folder)]
    assert reasons == ["images folder missing", "report unreadable"]


def test_a_duplicate_examination_is_rejected_after_the_first(folder):
    manifest(folder, row(), row("e2", "p2"), row("e1", "p3"))
    first, second, third = read_records(folder)
    assert isinstance(first, Examination) and isinstance(second, Examination)
    assert isinstance(third, Reject) and third.reason == "duplicate examination id (first in row 1)"
    assert third.frames == 3


def test_the_same_name_in_two_folders_is_labelled_by_its_path(folder):
    (folder / "labels.csv").write_text("file,polyp,polyp_index\ne2/f1.png,1,0\n")
    manifest(folder, row(images="e*/f1.png", frame_labels="labels.csv"))
    assert only(folder).frame_labels == {1: FrameLabel(0, False)}
    (folder / "labels.csv").write_text("file,polyp,polyp_index\nf1.png,1,0\n")
    assert isinstance(only(folder), Reject)


def test_what_is_no_records_folder_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        list(read_records(tmp_path / "none"))
    with pytest.raises(UserError, match=r"neither records.csv nor .* nor sub-folders"):
        list(read_records(tmp_path))
    (tmp_path / "records.csv").write_text("patient_id,exam_id\n1,2\n")
    with pytest.raises(UserError, match="lacks the column images, report"):
        list(read_records(tmp_path))
    (tmp_path / "records.csv").write_text("patient_id,exam_id,report,images\n")
    with pytest.raises(UserError, match="no rows"):
        list(read_records(tmp_path))
    (tmp_path / "records.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match="both"):
        list(read_records(tmp_path))
    (tmp_path / "records.csv").unlink()
    (tmp_path / "records.jsonl").write_text('{"a": 1}\n{"a"\n')
    with pytest.raises(UserError, match=r"line 2 of .* is not JSON"):
        list(read_records(tmp_path))


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "gb18030"]
)
@pytest.mark.parametrize(
    "report",
    [
        "Findings: a 5 mm polyp – sessile.",
        "检查所见:距肛缘25cm见一枚0-Is型息肉,约0.6cm,表面光滑。余所见肠段未见异常。NICE 2型。",
    ],
)
def test_encodings_are_guessed_right(folder, encoding, report):
    (folder / "e1" / "report.txt").write_bytes(report.encode(encoding))
    examination = next(iter(read_records(folder)))
    assert isinstance(examination, Examination) and examination.report == report
    text = f"patient_id,exam_id,report_text,images\np1,x1,{report.replace(',', ';')},e2\n"
    (folder / "records.csv").write_bytes(text.encode(encoding))
    assert only(folder).report == report.replace(",", ";")


def test_bytes_that_are_no_text_are_refused(folder):
    (folder / "e1" / "report.txt").write_bytes(b"\xff\xd8\xff\xe0\0\x10JFIF\0\x01\xff\xff")
    first = next(iter(read_records(folder)))
    assert isinstance(first, Reject) and "no text in UTF-8, UTF-16 or GB18030" in first.reason
