"""The record explorer in a real browser: a patient is picked by key, at two widths, offline."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from browser import Browser
from PIL import Image

from endoclip_jax.evaluation import report
from endoclip_jax.evaluation.explorer import ShownFrame, ShownPatient, explorer_html

SENTENCES = ("A 3 mm pale sessile polyp.", "A 12 mm red pedunculated polyp <with a stalk>.")
READS = np.array([[0.91, 0.09], [0.25, 0.75]])
LOOKS = np.array([[0.6, 0.4], [0.13, 0.87]])
SHOWN = "[...document.querySelectorAll('.patient')].filter(p => p.offsetHeight).map(p => p.id)"


def jpeg(colour):
    target = io.BytesIO()
    Image.new("RGB", (96, 72), colour).save(target, "JPEG")
    return target.getvalue()


@pytest.fixture(scope="module")
def patients():
    rng = np.random.default_rng(0)
    found = []
    for number in range(12):
        frames = tuple(
            ShownFrame(jpeg(tuple(rng.integers(60, 230, 3).tolist())), 0.05 + 0.08 * place,
                       place in (3, 9), {3: 0, 9: 1, 5: -2}.get(place, -1))
            for place in range(12)
        )  # fmt: skip
        several = number % 2 == 0
        found.append(
            ShownPatient(f"3f9a{number:02d}", frames, SENTENCES if several else (),
                         READS if several else None, LOOKS if several else None)
        )  # fmt: skip
    return found


@pytest.fixture(scope="module")
def page(patients, tmp_path_factory):
    findings = report.Findings(
        rows=[], seed=0, commit="c", hardware="h", seconds={}, card={"counts": {"records": 3}},
        config="", synthetic=True, patients=patients, model=[("architecture", "a small ViT")],
    )  # fmt: skip
    return report.write_report(tmp_path_factory.mktemp("report") / "index.html", findings)


def test_markup_says_what_the_patient_holds(patients):
    source = explorer_html(patients[:1])
    assert "&lt;with a stalk&gt;" in source and "<with" not in source
    assert source.count("<li") == 12 + 2 and source.count("class=kept") == 2
    assert "frame 4, ● polyp 1, probability 0.29, kept" in source
    tables = re.findall(r"<tbody>(.*?)</tbody>", source)
    cells = [[float(x) for x in re.findall(r">(\d\.\d\d)</td>", table)] for table in tables]
    np.testing.assert_allclose(np.reshape(cells[0], (2, 2)), READS.T)  # a row a sentence
    np.testing.assert_allclose(np.reshape(cells[1], (2, 2)), LOOKS)


def test_a_patient_is_picked_with_the_keyboard(page, tmp_path):
    """Tab to the list and the down arrow: the second patient's panel replaces the first one's."""
    with Browser() as browser:
        browser.size(1200, 900)
        browser.open(page)
        assert browser.value(SHOWN) == ["patient-0"]
        for _ in range(40):
            if browser.value("document.activeElement.name") == "patient":
                break
            browser.press("Tab", 9)
        assert browser.value("document.activeElement.id") == "pick-0"
        for _ in range(2):
            browser.press("ArrowDown", 40)
        assert browser.value(SHOWN) == ["patient-2"]
        assert browser.value("document.activeElement.id") == "pick-2"
        for name, width, phone in (("desktop", 1200, False), ("phone", 390, True)):
            browser.size(width, 844, phone=phone)
            assert browser.value("document.documentElement.scrollWidth") <= width
            browser.value("document.querySelector('.picker').scrollIntoView()")
            browser.screenshot(tmp_path / f"{name}.png")
            picture = np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB"))
            assert picture.shape[:2] == (844, width)
            shades = np.unique(picture[::4, ::4].reshape(-1, 3), axis=0)
            assert len(shades) > 20  # frames of many colours are in sight
        loaded = browser.value(
            "[...document.querySelectorAll('#patient-2 img')].map(i => i.naturalWidth)"
        )
        assert set(loaded) == {96} and len(loaded) == 12 + 2 * 2
        assert all(url.startswith(("file:", "data:")) for url in browser.asked_for)
