"""The report is one valid, self-contained file that says what the findings say and nothing else."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from endoclip_jax.evaluation import measured, page, report, wording
from endoclip_jax.evaluation.few_shot import FewShot
from endoclip_jax.evaluation.frame_selection import SelectionQuality
from endoclip_jax.evaluation.results import Row, few_shot_rows, scored_rows
from endoclip_jax.evaluation.statistics import Interval

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
VOID = {"meta", "img", "br", "line", "circle"}


class Page(HTMLParser):
    """Checks that tags nest, and gathers text, images, links and ids."""

    def __init__(self, source):
        super().__init__()
        self.open, self.words, self.images, self.ids, self.links = [], [], [], [], []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        assert not any(name.startswith("on") for name in attributes)
        assert tag not in ("script", "link", "iframe", "object")
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.links += [attributes["href"]] if "href" in attributes else []
        if tag == "img":
            self.images.append(attributes)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        assert tag in VOID

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.words).replace("\N{NON-BREAKING HYPHEN}", "-"))


@pytest.fixture
def findings():
    rng = np.random.default_rng(0)
    rows = []
    for model, shift in (("CLIP (trained here)", 0.3), ("Endo-CLIP", 1.4)):
        polyp, bad = np.arange(300) % 5 == 0, np.arange(84) < 68
        scores = polyp * shift + rng.normal(size=300)
        rows += scored_rows(model, "detection", "zero-shot", scores, polyp, np.arange(300) // 6, 0)
        scores = bad * shift + rng.normal(size=84)
        rows += scored_rows(model, "malignancy", "zero-shot", scores, bad, np.arange(84), 0)
        rows += scored_rows(model, "malignancy", "zero-shot P0", scores, bad, np.arange(84), 0)
        few = FewShot(0.1, (0.6, 0.7), (0.85, 0.95), (9, 9))
        rows += few_shot_rows(model, "malignancy", few, bad)
    quality = SelectionQuality(
        precision=Interval(0.66, 0.6, 0.72),
        recall=Interval(0.7, 0.65, 0.75),
        prevalence=0.22,
        kept=300,
        frames=1200,
        unknown=7,
        patients=100,
        without_polyp_frame=0.04,
    )
    return report.Findings(
        rows=rows,
        seed=11,
        commit="0123456789ab",
        hardware="2 cores <test>",
        seconds={"cohort": 41.0, "stage 1": 200.0},
        card={"schema": 1, "counts": {"train": {"patients": 1000}}, "shards": [{"sha": "x"}]},
        config="seed: 11\nname: <script>alert(1)</script>",
        synthetic=True,
        figures={"tsne": PNG, "attention:patient 3f9a": b"\xff\xd8jpeg", "Another & one": PNG},
        captions={"Another & one": "Drawn for <this> test."},
        selections={"after round 2": quality},
        differences={("detection", "auroc"): Interval(0.2, 0.1, 0.3)},
        notes=["3 frames were <lost>."],
    )


def read(path):
    return Page(path.read_text(encoding="utf-8"))


def test_report_is_whole_escaped_and_self_contained(tmp_path, findings):
    path = report.write_report(tmp_path / "report" / "index.html", findings)
    assert path == tmp_path / "report" / "index.html"
    assert list(path.parent.iterdir()) == [path]
    source = path.read_text(encoding="utf-8")
    found = Page(source)
    assert "http://" not in source and "https://" not in source and "<script" not in source
    assert "@import" not in source and not re.search(r"url\(", source)
    assert "default-src 'none'" in source
    for raw in ("<script>alert(1)</script>", "3 frames were <lost>.", "Drawn for <this> test."):
        assert raw in found.text
    assert [i["src"].split(",")[0] for i in found.images] == [
        "data:image/png;base64",
        "data:image/jpeg;base64",
        "data:image/png;base64",
    ]
    assert base64.b64decode(found.images[0]["src"].split(",")[1]) == PNG
    assert all(image["alt"].strip() for image in found.images)
    assert len(set(found.ids)) == len(found.ids)
    assert {link.removeprefix("#") for link in found.links} == set(found.ids)


def test_report_states_what_a_reader_must_know(tmp_path, findings):
    text = read(report.write_report(tmp_path / "index.html", findings)).text
    for words in (
        "not a medical device",
        "Synthetic data.",
        "say nothing about patients",
        "non-neoplastic (Vienna 1) against adenoma or worse (Vienna 3, 4 and 5)",
        "Vienna 2, indefinite, is excluded",
        "Seed 11, commit 0123456789ab, 2 cores <test>",
        "3.0 times as many as blind choice",
        "paired difference is +0.200 (95 % interval +0.100 to +0.300)",
        "68 positive, 16 negative",
        "stage 1 3 min 20 s",
        "all phases 4 min 1 s",
        "counts / train / patients 1,000",
        "What not to conclude.",
        "7 of unknown truth",
    ):
        assert words in text.replace("\xa0", " "), words


def test_headline_numbers_are_those_of_the_rows(tmp_path, findings):
    text = read(report.write_report(tmp_path / "index.html", findings)).text
    ours = {
        (row.task, row.metric): row
        for row in findings.rows
        if row.model == "Endo-CLIP" and row.setting == "zero-shot"
    }
    for row in ours.values():
        assert f"{row.value:.3f} {row.low:.3f}–{row.high:.3f}" in text
    line = re.search(r"Detection: 60 positive, 240 negative.*?chance ([\d. ]+)", text).group(1)
    assert line.split() == ["0.500", "0.200"]
    assert "± 0.071" in text  # of the two few-shot seeds


def test_real_data_is_not_called_synthetic(tmp_path, findings):
    real = replace(findings, synthetic=False)
    text = read(report.write_report(tmp_path / "index.html", real)).text
    assert "Synthetic data." not in text and "synthetic cohort" not in text
    assert "not a medical device" in text


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.1, 0.3, "more than the choice of test patients explains"),
        (-0.1, 0.3, "includes zero: undecided"),
        (-0.3, -0.1, "does worse than the baseline"),
    ],
)
def test_verdict_follows_the_paired_interval(tmp_path, findings, low, high, words):
    middle = Interval((low + high) / 2, low, high)
    changed = replace(findings, differences={("malignancy", "auroc"): middle})
    text = read(report.write_report(tmp_path / "index.html", changed)).text
    assert words in text


def test_a_run_with_hardly_anything_still_makes_a_page(tmp_path):
    bare = report.Findings(
        rows=[Row("CLIP (pre-trained)", "detection", "zero-shot", "auroc", None)],
        seed=0,
        commit="unknown",
        hardware="",
        seconds={},
        card={},
        config="",
        synthetic=False,
    )
    text = read(report.write_report(tmp_path / "index.html", bare)).text
    assert "did not run from a git checkout" in text
    assert [s.title for s in report.compose_sections(bare)] == [
        "In short",
        "Results",
        "Reproduce it",
    ]


def test_unknown_truth_leaves_dashes_and_no_claim(tmp_path, findings):
    nothing = Interval(float("nan"), float("nan"), float("nan"))
    quality = replace(
        findings.selections["after round 2"],
        precision=nothing,
        recall=nothing,
        prevalence=float("nan"),
        without_polyp_frame=float("nan"),
    )
    changed = replace(findings, selections={"after round 2": quality})
    text = read(report.write_report(tmp_path / "index.html", changed)).text
    assert not re.search(r"\bnan\b", text)


def test_every_known_figure_has_a_place_and_a_warning():
    placed = {name for names in measured.PLACES.values() for name in names}
    assert placed == set(wording.FIGURES)
    assert all(all(part.strip() for part in words) for words in wording.FIGURES.values())


def test_a_failed_write_leaves_the_old_page(tmp_path, findings):
    path = report.write_report(tmp_path / "index.html", findings)
    before = path.read_bytes()
    unwritable = page.Section("s", (page.Paragraph("\ud800"),))
    with pytest.raises(UnicodeEncodeError):
        page.write_page(
            path, title="t", subtitle="", warnings=[], cards=[], footer="",
            sections=[unwritable],
        )  # fmt: skip
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
