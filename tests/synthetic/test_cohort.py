"""The embedded cohort: statistics of what is drawn, learnability, and the bytes on disk."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from endoclip_jax.errors import UserError
from endoclip_jax.records.attributes import BIT_NAMES, aspect_slice
from endoclip_jax.synthetic import tables
from endoclip_jax.synthetic.cohort import labelled_patients, labelled_vienna, write_cohort
from endoclip_jax.synthetic.examination import plan_examination
from endoclip_jax.synthetic.sampling import (
    sample_frame_plans,
    sample_lesion,
    sample_lesions,
    sample_mentions,
    sample_polyp_count,
)

SMALL = {
    "examinations": {"train": 4, "validation": 1, "test": 2},
    "frames_per_case": 6,
    "polyps": 3,
}


def assert_share(found: float, expected: float, n: int) -> None:
    """Within 4.5 binomial standard errors; with a few hundred of these one in 1000 runs would fail,
    but the seed is fixed."""
    assert abs(found - expected) <= 4.5 * math.sqrt(expected * (1 - expected) / n) + 1e-9


@pytest.fixture(scope="module")
def lesions():
    return sample_lesions(np.random.default_rng(11), 24_000)


@pytest.fixture(scope="module")
def bits(lesions):
    return np.stack([x.bits for x in lesions])


@pytest.fixture(scope="module")
def vienna(lesions):
    return np.array([x.vienna for x in lesions])


def test_sizes_and_vienna_classes_follow_the_tables(bits, vienna):
    size = bits[:, aspect_slice("size_class")]
    assert (size.sum(1) == 1).all()
    for s in range(4):
        assert_share(size[:, s].mean(), tables.P_SIZE[s], len(bits))
        inside = vienna[size[:, s] == 1]
        for k, v in enumerate(tables.VIENNA):
            assert_share((inside == v).mean(), tables.P_VIENNA_GIVEN_SIZE[s, k], len(inside))


def test_forms_follow_the_tables(lesions, bits, vienna):
    forms = np.array([x.form for x in lesions])
    size = bits[:, aspect_slice("size_class")].argmax(1)
    for s, v in ((0, 1), (0, 3), (1, 3), (2, 3), (2, 4), (3, 4)):
        inside = forms[(size == s) & (vienna == v)]
        for k, p in enumerate(tables.form_probabilities(s, v)):
            assert_share((inside == tables.FORMS[k]).mean(), p, len(inside))


@pytest.mark.parametrize(
    ("aspect", "table"),
    [
        ("colour", tables.P_COLOUR),
        ("microstructure", tables.P_MICROSTRUCTURE),
        ("secondary_features", tables.P_SECONDARY),
    ],
)
def test_attributes_follow_the_tables(bits, vienna, aspect, table):
    for v in tables.VIENNA:
        inside = bits[vienna == v, aspect_slice(aspect)]
        p = np.array(table[v])
        if aspect != "secondary_features":
            p = p / p.sum()
        for k in range(len(p)):
            assert_share(inside[:, k].mean(), p[k], len(inside))


def test_surface_and_margin_follow_the_tables_and_their_rules(bits, vienna):
    surface, margin = bits[:, aspect_slice("surface")], bits[:, aspect_slice("margin")]
    assert (surface.sum(1) >= 1).all()
    assert not (margin[:, 0] & margin[:, 1]).any()
    for v in tables.VIENNA:
        p = np.array(tables.P_SURFACE[v])
        expected = p + np.prod(1 - p) * p / p.sum()
        inside = surface[vienna == v]
        for k in range(5):
            assert_share(inside[:, k].mean(), expected[k], len(inside))
        clear, indistinct, irregular = tables.P_MARGIN[v]
        inside = margin[vienna == v]
        assert_share(inside[:, 0].mean(), clear * (1 - indistinct / 2), len(inside))
        assert_share(inside[:, 1].mean(), indistinct * (1 - clear / 2), len(inside))
        assert_share(inside[:, 2].mean(), irregular, len(inside))


def test_lesion_fields_agree_with_their_bits(lesions):
    edges = {"diminutive_le5mm": (0, 5), "small_6_9mm": (5.1, 9.9), "large_10_19mm": (10, 19.9)}
    for x in lesions[:5000]:
        on = {BIT_NAMES[i] for i in np.flatnonzero(x.bits)}
        (size,) = (n.split(".")[1] for n in on if n.startswith("size_class"))
        low, high = edges.get(size, (20, 999))
        assert low <= x.size_mm <= high
        assert ("lst_growth.lst" in on) == (x.form == "LST") == (x.lst_type is not None)
        assert ("gross_form.mass" in on) == (x.form == "mass")
        assert ("attachment.pedunculated" in on) == (x.form == "Ip")
        assert x.location in tables.LOCATIONS


def test_vienna_can_be_asked_for():
    rng = np.random.default_rng(0)
    assert [sample_lesion(rng, v).vienna for v in (1, 3, 4, 5)] == [1, 3, 4, 5]
    invasive = sample_lesions(rng, 4000, np.full(4000, 5))
    joint = tables.P_SIZE * tables.P_VIENNA_GIVEN_SIZE[:, 3]
    assert_share(np.mean([x.size_mm >= 20 for x in invasive]), joint[3] / joint.sum(), 4000)


def logistic_auroc(bits: np.ndarray, vienna: np.ndarray) -> float:
    """Neoplastic against not, fitted on one half of the lesions and scored on the other."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score

    half = len(bits) // 2
    model = LogisticRegression(max_iter=500).fit(bits[:half], vienna[:half] >= 3)
    return roc_auc_score(vienna[half:] >= 3, model.decision_function(bits[half:]))


def test_attributes_are_as_learnable_as_the_literature_says(bits, vienna):
    x = bits.astype(float)
    assert logistic_auroc(x, vienna) == pytest.approx(0.975, abs=0.02)
    look = x.copy()
    look[:, aspect_slice("microstructure")] = 0
    look[:, aspect_slice("size_class")] = 0
    assert logistic_auroc(look, vienna) == pytest.approx(0.841, abs=0.02)
    said = x.copy()
    for aspect, flags in sample_mentions(np.random.default_rng(5), len(x)).items():
        said[~flags, aspect_slice(aspect)] = 0
    assert logistic_auroc(said, vienna) == pytest.approx(0.828, abs=0.02)


@pytest.mark.parametrize("frames", [12, 60])
def test_frames_of_positive_examinations(frames):
    rng = np.random.default_rng(3)
    pool = sample_lesions(rng, 3_000)
    shares, nbi_polyp, nbi_other = [], [], []
    for _ in range(1000):
        lesions = [pool.pop() for _ in range(sample_polyp_count(rng))]
        plans = sample_frame_plans(rng, lesions, frames)
        assert len(plans) == frames
        for i in range(len(lesions)):
            own = [p for p in plans if p.polyp == i]
            assert sum(p.indicative for p in own) == 1
            if any(p.imaging == "nbi" for p in own):
                assert next(p for p in own if p.indicative).imaging == "nbi"
        shares.append(np.mean([p.polyp >= 0 for p in plans]))
        nbi_polyp += [p.imaging == "nbi" for p in plans if p.polyp >= 0]
        nbi_other += [p.imaging == "nbi" for p in plans if p.polyp < 0]
    assert np.mean(shares) == pytest.approx(0.21, abs=0.015)
    assert_share(np.mean(nbi_polyp), tables.NBI_SHARE_POLYP, len(nbi_polyp))
    assert_share(np.mean(nbi_other), tables.NBI_SHARE_OTHER, len(nbi_other))


def test_polyps_per_positive_examination():
    rng = np.random.default_rng(0)
    counts = np.array([sample_polyp_count(rng) for _ in range(5000)])
    for k, p in enumerate(tables.P_POLYPS):
        assert_share((counts == k + 1).mean(), p, len(counts))


@pytest.mark.parametrize(("seed", "n"), [(0, 250), (1, 100), (7, 400)])
def test_every_size_of_cohort_has_its_share_of_positives(seed, n):
    positives = sum(bool(plan_examination(seed, "train", i, 6).lesions) for i in range(n))
    assert abs(positives - n * tables.POSITIVE_SHARE) <= 1


def test_labelled_polyps_are_one_benign_to_four():
    rng = np.random.default_rng(0)
    vienna = labelled_vienna(rng, 400)
    assert (vienna == 1).sum() == 80
    assert (vienna >= 4).sum() == pytest.approx(320 * 20 / 68, abs=1)
    patients = labelled_patients(rng, 400)
    assert len(patients) == 400
    assert 400 / len(set(patients)) == pytest.approx(1.68, abs=0.2)


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text("utf-8").splitlines()))


def digests(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return write_cohort(tmp_path_factory.mktemp("cohort"), seed=5, processes=1, **SMALL)


def test_bytes_do_not_depend_on_the_number_of_processes(small, tmp_path):
    seen = []
    write_cohort(
        tmp_path, seed=5, processes=2, progress=lambda done, total: seen.append((done, total)),
        **SMALL,
    )  # fmt: skip
    assert digests(tmp_path) == digests(small)
    assert seen[-1] == (7 * 6 + 3, 7 * 6 + 3)


def test_an_interrupted_cohort_is_continued(small, tmp_path):
    shutil.copytree(small, tmp_path, dirs_exist_ok=True)
    whole = digests(tmp_path)
    kept = tmp_path / "records" / "E0000001" / "0001.jpg"
    before = kept.stat().st_mtime_ns
    (tmp_path / "cohort.json").rename(tmp_path / "cohort.partial.json")
    (tmp_path / "records" / "records.csv").unlink()
    for path in (tmp_path / "records" / "E0000000").iterdir():
        path.unlink()
    (tmp_path / "records" / "E0000000").rmdir()
    (tmp_path / "records" / ".E0000000.partial").mkdir()
    write_cohort(tmp_path, seed=5, processes=1, **SMALL)
    assert digests(tmp_path) == whole
    assert kept.stat().st_mtime_ns == before


def test_a_folder_with_another_cohort_is_refused(small):
    before = digests(small)
    with pytest.raises(UserError, match="another cohort"):
        write_cohort(small, seed=6, processes=1, **SMALL)
    with pytest.raises(UserError, match="another cohort"):
        write_cohort(small, seed=5, processes=1, **{**SMALL, "polyps": 4})
    write_cohort(small, seed=5, processes=1, **SMALL)
    assert digests(small) == before


@pytest.mark.parametrize(
    "change", [{"frames_per_case": 5}, {"examinations": {"dev": 3}}, {"polyps": -1}]
)
def test_impossible_cohorts_are_refused(tmp_path, change):
    with pytest.raises(UserError):
        write_cohort(tmp_path, seed=0, processes=1, **{**SMALL, **change})


def test_manifest_labels_and_truth_agree(small):
    records = small / "records"
    rows = table(records / "records.csv")
    truth = [json.loads(x) for x in (records / "truth.jsonl").read_text("utf-8").splitlines()]
    assert [r["exam_id"] for r in rows] == [t["exam_id"] for t in truth]
    assert [r["split"] for r in rows] == ["train"] * 4 + ["validation"] + ["test"] * 2
    for row, known in zip(rows, truth, strict=True):
        assert json.loads(row["pathology"]) == [x["vienna"] for x in known["lesions"]]
        assert (records / row["report"]).read_text("utf-8").strip()
        labels = table(records / row["frame_labels"])
        images = sorted(p.name for p in (records / row["images"]).glob("*.jpg"))
        assert [x["file"] for x in labels] == images == [f["file"] for f in known["frames"]]
        for label, frame in zip(labels, known["frames"], strict=True):
            shown = frame["polyp_index"]
            assert label["polyp"] == str(int(shown >= 0))
            assert label["polyp_index"] == (str(shown) if shown >= 0 else "")
            assert label["indicative"] == str(int(frame["indicative"]))
        for i, lesion in enumerate(known["lesions"]):
            best = next(f for f in known["frames"] if f["file"] == lesion["frame"])
            assert best["polyp_index"] == i and best["indicative"]
            assert i in known["items"][lesion["item"]]["lesions"]
        assert known["case_type"] == ("negative", "single", "multi")[min(len(known["lesions"]), 2)]
    pixels = simplejpeg.decode_jpeg((records / rows[0]["images"] / "0001.jpg").read_bytes())
    assert pixels.shape == (288, 360, 3)


def test_labelled_set_on_disk(small):
    rows = table(small / "polyps" / "labels.csv")
    assert list(rows[0])[:4] == ["file", "polyp", "vienna", "patient"]
    known = [json.loads(x) for x in (small / "polyps" / "truth.jsonl").read_text().splitlines()]
    for row, lesion in zip(rows, known, strict=True):
        bits = dict(zip(BIT_NAMES, lesion["bits"], strict=True))
        assert bits[f"size_class.{row['size_class']}"] == 1
        assert row["imaging"] in ("wli", "nbi") and row["segment"] in tables.LOCATIONS
    assert [r["polyp"] for r in rows] == ["1"] * 3
    assert sorted(int(r["vienna"]) >= 3 for r in rows) == [False, True, True]
    for row in rows:
        assert (small / "polyps" / row["file"]).is_file()
    assert not list(small.rglob("*partial*"))
