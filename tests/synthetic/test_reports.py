"""The reports of the embedded cohort say what their truth says, and nothing of the diagnosis."""

from __future__ import annotations

import re

import numpy as np
import pytest

from endoclip_jax.records.attributes import aspect_slice, attribute_bits
from endoclip_jax.synthetic import tables
from endoclip_jax.synthetic.findings import item_bits, mention
from endoclip_jax.synthetic.report import P_HEADER, write_report
from endoclip_jax.synthetic.sampling import sample_lesions, sample_polyp_count

CASES = 300


@pytest.fixture(scope="module", params=["en", "zh"])
def written(request):
    """[(lesions in order of mention, report)] of one language, negatives among them."""
    cases = []
    for seed in range(CASES):
        rng = np.random.default_rng(seed)
        n = sample_polyp_count(rng) if seed % 5 else 0
        lesions = sample_lesions(rng, n)
        report = write_report(rng, lesions, request.param)
        assert sorted(report.order) == list(range(n))
        cases.append(([lesions[i] for i in report.order], report))
    return cases


def test_the_same_stream_writes_the_same_report():
    lesions = sample_lesions(np.random.default_rng(0), 3)
    first, second = (write_report(np.random.default_rng(1), lesions) for _ in range(2))
    assert first == second


def test_items_cover_the_lesions_in_order(written):
    for lesions, report in written:
        mentioned = [i for item in report.items for i in item["lesions"]]
        assert mentioned == list(range(len(lesions)))
        for item in report.items:
            assert item["count"] == len(item["lesions"])
            assert item["count_is_approximate"] == (item["count"] > 1)
            assert set(item["location"]) <= {lesions[i].location for i in item["lesions"]}


def test_nothing_is_said_that_is_not_so(written):
    for lesions, report in written:
        for item in report.items:
            bits = np.array(item["bits"])
            np.testing.assert_array_equal(bits, attribute_bits(item))
            sizes = [lesions[i].size_mm for i in item["lesions"]]
            if item["size_mm_max"] is not None and item["count"] > 1:
                assert (item["size_mm_min"], item["size_mm_max"]) == (min(sizes), max(sizes))
                bits[aspect_slice("size_class")] = 0
            for i in item["lesions"]:
                assert (bits <= lesions[i].bits).all(), report.text


def test_numbers_and_codes_stand_in_the_text(written):
    for _, report in written:
        for item in report.items:
            if item["size_mm_max"] is not None:
                mm = item["size_mm_max"]
                assert f"{mm:g}" in report.text or f"{mm / 10:.1f}" in report.text
            if item["distance_from_anal_verge_cm"] is not None:
                assert f"{item['distance_from_anal_verge_cm']}" in report.text
            for system in ("nice", "jnet"):
                if item[system]:
                    assert re.search(rf"{system.upper()}\D{{0,8}}{item[system]}", report.text)
            for code in item["kudo"]:
                assert re.search(
                    rf"(?:[Kk]udo|pattern|腺管开口)\D{{0,8}}?{code}(?![A-Za-z])", report.text
                )


def test_language_and_identity(written):
    headers = 0
    for _, report in written:
        chinese = len(re.findall("[\u4e00-\u9fff]", report.text))
        assert (chinese > 20) == (report.language == "zh")
        assert report.language == "zh" or chinese == 0
        headers += bool(report.private)
        for piece in report.private:
            assert piece in report.text
    assert headers / CASES == pytest.approx(P_HEADER, abs=0.12)


DIAGNOSES = re.compile(
    "adenoma|carcinoma|hyperplastic|dysplasia|malignan|benign|Vienna|腺瘤|癌|恶性|良性"
)


def test_no_diagnosis_in_the_findings(written):
    for _, report in written:
        findings = re.split("(?i)findings:|所见", report.text, maxsplit=1)[1]
        assert not DIAGNOSES.search(findings), findings


def test_negative_examinations_are_of_many_kinds(written):
    negatives = [report for lesions, report in written if not lesions]
    assert all(report.items == [] and report.kind != "polyps" for report in negatives)
    kinds = {report.kind for report in negatives}
    assert {"normal", "haemorrhoids", "diverticula", "scar_or_anastomosis", "inflammation"} <= kinds
    with_history = [r for r in negatives if re.search("olyp.* in (19|20)|切除术|EMR术", r.text)]
    assert len(with_history) > 0.1 * len(negatives)


def test_every_style_and_every_kind_of_sentence_occurs(written):
    styles = {report.style for _, report in written}
    assert len(styles) == (5 if written[0][1].language == "en" else 3)
    assert any(item["count"] > 1 for _, report in written for item in report.items)
    text = "\n".join(report.text for _, report in written)
    for pattern in (
        (
            "one each in",
            "were seen: ",
            r"\| No\.",
            "LST",
            "from the anal verge",
            r"\d cm\b",
            r"\d mm\b",
        )
        if written[0][1].language == "en"
        else ("各见", r"\dcm、", "山田", "LST", "距肛", r"\dcm", r"\dmm", "、")
    ):
        assert re.search(pattern, text), pattern


def test_mention_rates_and_learnability_of_what_is_mentioned():
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(2)
    lesions = sample_lesions(rng, 8_000)
    findings = [mention(rng, x, i, chinese=i % 5 < 2) for i, x in enumerate(lesions)]
    said = {
        "size_class": np.mean([bool(f.size_mm or f.size_word) for f in findings]),
        "gross_form": np.mean([f.form is not None for f in findings if not f.lst]),
        "surface": np.mean([bool(f.surface) for f in findings]),
        "colour": np.mean([bool(f.colour) for f in findings]),
        "microstructure": np.mean([f.micro is not None for f in findings]),
    }
    for aspect, share in said.items():
        assert share == pytest.approx(tables.P_MENTION[aspect], abs=0.02), aspect

    bits = np.stack([item_bits(f) for f in findings])
    neoplastic = np.array([x.vienna >= 3 for x in lesions])
    model = LogisticRegression(max_iter=500).fit(bits[:4000], neoplastic[:4000])
    auroc = roc_auc_score(neoplastic[4000:], model.decision_function(bits[4000:]))
    assert auroc == pytest.approx(0.828, abs=0.02)
    assert bits.sum(1).mean() == pytest.approx(3.9, abs=0.2)


def test_languages_are_mixed():
    lesions = sample_lesions(np.random.default_rng(0), 1)
    languages = [write_report(np.random.default_rng(i), lesions).language for i in range(400)]
    assert np.mean([x == "zh" for x in languages]) == pytest.approx(tables.CHINESE_SHARE, abs=0.09)
