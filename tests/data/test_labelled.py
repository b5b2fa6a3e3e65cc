from __future__ import annotations

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from endoclip_jax.data.labelled import field_image, labelled_batches, read_labelled
from endoclip_jax.data.transforms import resize
from endoclip_jax.errors import UserError


def framed(rng):
    """A bright square field, right of centre in a black surround."""
    pixels = np.zeros((96, 128, 3), np.uint8)
    field = np.kron(rng.integers(90, 220, (10, 10, 3), dtype=np.uint8), np.ones((8, 8, 1)))
    pixels[8:88, 40:120] = field
    return pixels


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / "images" / name).write_bytes(
            simplejpeg.encode_jpeg(np.ascontiguousarray(framed(rng)), 95)
        )
    Image.fromarray(framed(rng)).save(tmp_path / "c.png")
    labels = "file,polyp,vienna,patient\na.jpg,1,4,p1\nimages/b.jpg,0,,p1\nc.png,1,0,\n"
    (tmp_path / "labels.csv").write_text(labels, encoding="utf-8")
    return tmp_path


def test_reads_labels(folder):
    labelled = read_labelled(folder)
    assert [path.name for path in labelled.paths] == ["a.jpg", "b.jpg", "c.png"]
    assert labelled.polyp.tolist() == [True, False, True]
    assert labelled.vienna.tolist() == [4, 0, 0]
    assert labelled.patient == ("p1", "p1", "c.png")
    assert len(labelled) == 3
    assert labelled.unnamed == 1 and not labelled.strata


def test_two_columns_are_enough(folder):
    (folder / "labels.csv").write_text("file,polyp\na.jpg,1\n", encoding="utf-8")
    labelled = read_labelled(folder)
    assert (labelled.vienna.tolist(), labelled.patient) == ([0], ("a.jpg",))


def test_optional_columns_are_kept_as_words(folder):
    text = "file,polyp,imaging,size_class,note\na.jpg,1, nbi ,,x\nb.jpg,0,wli,giant_ge20mm,y\n"
    (folder / "labels.csv").write_text(text, encoding="utf-8")
    strata = read_labelled(folder).strata
    assert {name: values.tolist() for name, values in strata.items()} == {
        "imaging": ["nbi", "wli"],
        "size_class": ["", "giant_ge20mm"],
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\na.jpg,1\n", "columns file and polyp"),
        ("file,polyp\n", "at least one frame"),
        ("file,polyp\na.jpg,1\nmissing.jpg,1\n", "line 3: there is no frame 'missing.jpg'"),
        ("file,polyp\na.jpg,maybe\n", "line 2: polyp is 'maybe'"),
        ("file,polyp,vienna\na.jpg,1,6\n", "line 2: vienna is '6'"),
        ("file,polyp\na.jpg,1\nimages/a.jpg,0\n", "names a.jpg twice"),
        ("file,polyp\n../outside.jpg,1\n", "leads out of the folder"),
    ],
)
def test_mistakes_are_told_with_their_line(folder, text, message):
    (folder.parent / "outside.jpg").write_bytes((folder / "images" / "a.jpg").read_bytes())
    (folder / "labels.csv").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        read_labelled(folder)


def test_a_folder_without_labels(tmp_path):
    with pytest.raises(UserError, match=r"labels\.csv"):
        read_labelled(tmp_path)


def test_frames_are_cut_to_their_field_and_resized(folder):
    batches = labelled_batches(read_labelled(folder), 2, 16)
    assert len(batches) == 2
    first, last = batches
    assert first["frame"].tolist() + last["frame"].tolist() == [0, 1, 2, -1]
    assert last["valid"].tolist() == [True, False]
    lossless = np.asarray(Image.open(folder / "c.png"))[8:88, 40:120]
    np.testing.assert_array_equal(last["image"][0], resize(np.ascontiguousarray(lossless), 16))
    assert first["image"].min() > 50  # nothing of the black surround


def test_a_broken_frame_keeps_its_row(folder):
    (folder / "images" / "a.jpg").write_bytes(b"\xff\xd8 broken")
    batches = labelled_batches(read_labelled(folder), 4, 16)
    (batch,) = batches
    assert batch["valid"].tolist() == [False, True, True, False]
    assert batch["frame"].tolist() == [0, 1, 2, -1]
    assert batches.corrupt == 1
    assert "a.jpg" in batches.corrupt_names()[0]


def test_writing_in_a_corner_is_blackened_as_in_prepared_frames():
    """The endoscope's round field is what is compared; training saw no writing beside it."""
    rows, columns = np.mgrid[:288, :360]
    inside = (rows - 144) ** 2 + (columns - 220) ** 2 < 130**2
    pixels = np.zeros((288, 360, 3), np.uint8)
    pixels[inside] = np.random.default_rng(0).integers(90, 220, (inside.sum(), 3), dtype=np.uint8)
    written = pixels.copy()
    written[18:20, 94:106] = written[24:26, 94:106] = 255  # strokes of text
    seen, clean = field_image(written, 32), field_image(pixels, 32)
    assert seen[:3, :3].max() == 0
    np.testing.assert_array_equal(seen[8:-8, 8:-8], clean[8:-8, 8:-8])
