"""No person in what leaves the house: names, ids, dates, file names, EXIF, writing on the screen.

Everything but the private folder is searched, byte by byte, in every spelling a file could have.
"""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from chat_server import Reply, honest, serving
from PIL import Image, ImageDraw
from stored import read_record

from endoclip_jax.records.extraction import extract
from endoclip_jax.records.extraction.choice import Choice
from endoclip_jax.records.extraction.llm import LLMSettings
from endoclip_jax.records.extraction.llm_check import _unfit
from endoclip_jax.shards.index import Index
from endoclip_jax.shards.prepare import prepare
from endoclip_jax.shards.reader import read_frame

ROOT = Path(__file__).resolve().parents[2]
SECRETS = (
    "ZYX-PAT", "ZYX-EXM", "Winterbottom", "Featherstonehaugh", "张三丰", "欧阳明月", "zyxfile",
    "zyxexam", "1957-03-04", "1957", "Olympus-Serial", "Royal Zyx Infirmary", "88004417",
)  # fmt: skip
SPELLINGS = ("utf-8", "utf-16-le", "utf-16-be", "gb18030", "big5")
REPORTS = (
    "Patient: Winterbottom, Agatha\nDate: 1957-03-04\nMRN 88004417\n"
    "Findings: A 6 mm sessile polyp was shown to Dr. Featherstonehaugh in the rectum of "
    "Winterbottom, MRN 88004417, case ZYX-EXM-{i}.",
    "姓名:张三丰 检查日期:1957年03月04日 住院号:88004417\n"
    "检查所见:升结肠见一枚0-Is型息肉,约0.6cm,表面光滑。张三丰病历ZYX-EXM-{i}。\n检查医师:欧阳明月",
)
HEIGHT, WIDTH = 240, 320
CENTRE, RADIUS = (120, 190), 110


def screen(seed):
    """A round picture on a black screen with a name, an id and dates beside it and in its corners;
    EXIF and a comment say the rest."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    inside = (y - CENTRE[0]) ** 2 + (x - CENTRE[1]) ** 2 < RADIUS**2
    texture = np.random.default_rng(seed).integers(90, 190, (HEIGHT // 8, WIDTH // 8, 3))
    pixels = np.where(inside[..., None], texture.repeat(8, 0).repeat(8, 1), 0).astype(np.uint8)
    image = Image.fromarray(pixels)
    draw = ImageDraw.Draw(image)
    for place, words in (
        ((2, 30), "A Winterbottom"), ((2, 60), "1957-03-04"), ((265, 14), "88004417"),
        ((262, 218), "04/03/57"), ((84, 12), "ZYX-P"),
    ):  # fmt: skip
        draw.text(place, words, fill=(255, 255, 255))
    exif = Image.Exif()
    exif[0x010E] = "Winterbottom 88004417"  # description
    exif[0x0110] = "Olympus-Serial"
    exif[0x0132] = "1957:03:04 10:11:12"
    exif[0x013B] = "Royal Zyx Infirmary"
    return image, exif


def records_folder(base):
    """A records folder with rejects of all kinds."""
    folder = base / "records"
    rows = []
    for i in range(6):
        exam = folder / f"zyxexam-{i}"
        exam.mkdir(parents=True)
        for k in range(3):
            image, exif = screen(10 * i + k)
            kind = ("jpg", "png", "jpg")[k]
            image.save(exam / f"zyxfile-{k}.{kind}", exif=exif, quality=95, comment=b"Winterbottom")
        (exam / "report.txt").write_bytes(
            REPORTS[i % 2].format(i=i).encode("gb18030" if i % 2 else "utf-8")
        )
        rows.append(
            [f"ZYX-PAT-{i // 2}", f"ZYX-EXM-{i}", f"zyxexam-{i}/report.txt", f"zyxexam-{i}"]
        )
    (folder / "zyxexam-2" / "zyxfile-0.jpg").write_bytes(b"Winterbottom, no picture")
    rows.append(["ZYX-PAT-8", "ZYX-EXM-8", "../zyxfile.txt", "zyxexam-0"])
    rows.append(["ZYX-PAT-9", "ZYX-EXM-9", "zyxexam-0/report.txt", "zyxexam-77"])
    rows.append(["ZYX-PAT-0", "ZYX-EXM-0", "zyxexam-0/report.txt", "zyxexam-0"])
    with (folder / "records.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["patient_id", "exam_id", "report", "images"], *rows])
    return folder


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """(the data set, all that was printed) of `records_folder`."""
    base = tmp_path_factory.mktemp("privacy")
    folder = records_folder(base)
    done = subprocess.run(
        [
            sys.executable, str(ROOT / "launch" / "prepare.py"), f"--records={folder}",
            f"--out={base / 'out'}", "--workers=1", "--splits=1,0,0",
        ],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return base / "out", done.stdout + done.stderr


# Hashes of patients and examinations, by a random salt: one in a hundred runs has a year in one.
DIGEST = re.compile(rb"(?<![0-9a-f])[0-9a-f]{16,64}(?![0-9a-f])")


def spelled(secret):
    for encoding in SPELLINGS:
        try:
            yield encoding, secret.encode(encoding)
        except UnicodeEncodeError:
            continue


def test_no_secret_stands_in_any_file_nor_in_what_was_printed(prepared):
    index = nothing_leaves(*prepared)
    assert len(index.rows()) == 6 and index.card["accounting"]["records_rejected"] == 3
    assert {"[name]", "[number]"} <= marks(index)


def nothing_leaves(out, printed):
    """Searches the data set and what was printed for every secret; returns the index."""
    files = {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert {"dataset.json", "card.html", "rejects.jsonl"} <= {path.name for path in files}
    files |= {Path("name", path): str(path).encode() for path in files}
    for name, raw in {**files, Path("printed"): printed}.items():
        low = DIGEST.sub(b"#", raw.lower())
        for secret in SECRETS:
            for encoding, word in spelled(secret.lower()):
                assert word not in low, (name, secret, encoding)
    index = Index.open(out)
    assert not [text for text in stored_texts(index) for secret in SECRETS if secret in text]
    return index


def stored_texts(index):
    return [
        text.decode()
        for row in index.rows()
        for key in ("report/diagnostic", "item/description")
        for text in read_record(index, row)[key]
    ]


def marks(index):
    return {mark for text in stored_texts(index) for mark in re.findall(r"\[[a-z]+\]", text)}


def telling(request):
    """A model's answer that holds to the report, and says in every field whose it is."""
    extraction = json.loads(honest(request).content)
    lines = [line for line in request.report.splitlines() if line.strip()]
    extraction["diagnostic_sentences"] = lines
    for polyp in extraction["polyps"]:
        polyp["evidence"] += lines
        told = TOLD[(len(request.report) + request.turn) % len(TOLD)]
        polyp["description"] = told + polyp["description"]
    return Reply(json.dumps(extraction, ensure_ascii=False))


TOLD = (
    "Seen by Dr. Featherstonehaugh, ", "MRN 88004417: ", "In Agatha Winterbottom, ",
    "On 04/03/1957 ", "Polyp of Zhang Sanfeng, ",
)  # fmt: skip


def test_a_model_that_tells_everything_tells_nobody(tmp_path, capfd):
    out, cache = tmp_path / "out", tmp_path / "answers"
    with serving(telling) as server:
        choice = Choice("llm", LLMSettings(server.url, "m", cache, timeout_s=20, tries=2))
        summary = prepare(
            records_folder(tmp_path), out, extractor=choice, workers=1, splits=(1, 0, 0)
        )
    said = capfd.readouterr()
    printed = "\n".join([said.out, said.err, *summary.lines()]).encode()
    index = nothing_leaves(out, printed)
    read = summary.card["extraction"]["readings"]
    assert (read["read_by_llm"], read["reworded"]) == (6, 6)
    assert {"[name]", "[number]", "[date]"} <= marks(index)
    assert "Winterbottom" in "".join(path.read_text() for path in cache.rglob("*.json"))
    foreign = ("Zhang", "Sanfeng", "Agatha")
    assert not [text for text in stored_texts(index) for name in foreign if name in text]


@pytest.mark.parametrize("told", ["Sessile polyp, Zhang Sanfeng", "Polyp of 1957-03-04", *TOLD])
def test_a_description_that_names_somebody_is_unfit(told):
    assert _unfit(told.strip(" :,"))


def test_what_the_rules_write_is_fit():
    described = [polyp["description"] for report in REPORTS for polyp in extract(report)["polyps"]]
    assert len(described) == 2 and not any(map(_unfit, described))
    assert not _unfit("Sessile Polyp in the Sigmoid Colon, Paris 0-Is, NICE type 2, Yamada II.")


def test_the_stored_pictures_have_no_words_and_no_metadata(prepared):
    index = Index.open(prepared[0])
    assert len(index.frames) == 17 and index.card["frames"]["frames_masked"] == 17
    for row in range(len(index.frames)):
        jpeg = read_frame(index, row)
        assert _segments(jpeg) <= {0xE0, 0xDB, 0xC0, 0xC4, 0xDA}  # no APP1, no comment
        pixels = simplejpeg.decode_jpeg(jpeg)
        height, width = pixels.shape[:2]
        assert abs(height - 2 * RADIUS) <= 12 and abs(width - 2 * RADIUS) <= 12
        y, x = np.mgrid[:height, :width]
        away = np.hypot(y - (height - 1) / 2, x - (width - 1) / 2)
        assert pixels[away > RADIUS + 14].max() <= 24  # black, but for what JPEG makes of edges
        assert pixels[away < RADIUS - 14].min() >= 60


def _segments(jpeg):
    """The markers of a JPEG's segments up to the picture itself."""
    found, place = set(), 2
    while jpeg[place] == 0xFF:
        found.add(jpeg[place + 1])
        if jpeg[place + 1] == 0xDA:
            break
        place += 2 + int.from_bytes(jpeg[place + 2 : place + 4], "big")
    return found
