"""EndoReport50 and 100 in their described form: true counts pass, others are named and refused."""

from __future__ import annotations

import pytest

from endoclip_jax.errors import UserError
from endoclip_jax.evaluation.endoreport import read_protocol

GIF = (
    b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff!\xf9\x04\x01\x00\x00\x00\x00,\x00"
)


def write(folder, rows):
    """`labels.csv` and a one-pixel picture a row; labels are read, pictures only looked for."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["file,polyp,vienna,patient"]
    for number, (polyp, vienna, patient) in enumerate(rows):
        name = f"{number}.gif"
        if number == 0:
            (folder / name).write_bytes(GIF)
        elif not (folder / name).exists():
            (folder / name).hardlink_to(folder / "0.gif")
        lines.append(f"{name},{polyp},{vienna},{patient}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")


def detection(normal=2308, polyp=608):
    return [(int(n < polyp), "", n % 50) for n in range(normal + polyp)]


def malignancy(benign=16, malignant=68, patients=50):
    return [(1, 1 if n < benign else 3 + n % 3, n % patients) for n in range(benign + malignant)]


@pytest.fixture(scope="module")
def endoreport50(tmp_path_factory):
    folder = tmp_path_factory.mktemp("endoreport50")
    write(folder / "detection", detection())
    write(folder / "malignancy", malignancy())
    return folder


def test_the_published_counts_pass(endoreport50):
    write(endoreport50 / "malignancy", malignancy())
    sets = read_protocol(endoreport50, "endoreport50")
    assert sets.detection.polyp.sum() == 608 and len(sets.detection) == 2916
    assert len(sets.malignancy) == 84 and len(set(sets.malignancy.patient)) == 50


@pytest.mark.parametrize(
    "rows, sentence",
    [
        (
            malignancy(17, 67, patients=49),
            "17 polyps of Vienna class 1 where 16 are published; 67 polyps of .* 49 patients where",
        ),
        ([*malignancy()[:-1], (1, 2, 83 % 50)], "67 polyps of Vienna class 3, 4 or 5 where 68"),
    ],
)
def test_other_counts_are_refused_by_name(endoreport50, rows, sentence):
    write(endoreport50 / "malignancy", rows)
    with pytest.raises(UserError, match=sentence) as error:
        read_protocol(endoreport50, "endoreport50")
    assert "\n" not in str(error.value)


def test_endoreport100_counts_frames_and_cases(tmp_path):
    write(tmp_path, [(int(n % 7 == 0), "", f"case {n % 100}") for n in range(7003)])
    sets = read_protocol(tmp_path, "endoreport100")
    assert len(sets.detection) == 7003 and sets.malignancy is None
    lines = (tmp_path / "labels.csv").read_text().splitlines()
    (tmp_path / "labels.csv").write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(UserError, match="7,002 frames where 7,003 are published"):
        read_protocol(tmp_path, "endoreport100")


def test_a_missing_part_is_named(tmp_path):
    write(tmp_path / "detection", detection(3, 2))
    with pytest.raises(UserError, match=r"malignancy/labels\.csv"):
        read_protocol(tmp_path, "endoreport50")
