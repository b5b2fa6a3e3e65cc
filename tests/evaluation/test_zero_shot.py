"""Zero-shot scores against float64 loops, and what the prompt sets must and must not say."""

from __future__ import annotations

import re

import numpy as np
import pytest

from endoclip_jax.errors import UserError
from endoclip_jax.evaluation import prompts, zero_shot


def cosine(a, b):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return rng.normal(size=(6, 8)), rng.normal(size=8), rng.normal(size=8)


def test_detection_is_a_difference_of_cosines_in_fp32(arrays):
    v, polyp, background = arrays
    scores = zero_shot.zero_shot_scores(v, polyp, background)
    assert scores.dtype == np.float32
    expected = [cosine(row, polyp) - cosine(row, background) for row in v]
    np.testing.assert_allclose(scores, expected, atol=1e-6)


def test_half_precision_embeddings_are_scored_in_fp32(arrays):
    v, polyp, background = (a.astype(np.float16) for a in arrays)
    scores = zero_shot.zero_shot_scores(v, polyp, background)
    expected = [cosine(row, polyp) - cosine(row, background) for row in v]
    np.testing.assert_allclose(scores, expected, atol=1e-6)


def test_class_feature_weighs_every_sentence_alike():
    features = np.array([[10.0, 0.0], [0.0, 0.1]])
    np.testing.assert_allclose(zero_shot.class_feature(features), [0.5**0.5] * 2, atol=1e-6)


def test_malignancy_applies_each_value_projection_to_its_own_side(arrays):
    v, malignant, benign = arrays
    rng = np.random.default_rng(1)
    w_image, w_text = rng.normal(size=(8, 8)), rng.normal(size=(8, 8))
    scores = zero_shot.zero_shot_scores(v, malignant, benign, w_image, w_text)
    for score, row in zip(scores, v, strict=True):
        image = [sum(row[i] * w_image[i, j] for i in range(8)) for j in range(8)]
        texts = [
            [sum(t[i] * w_text[i, j] for i in range(8)) for j in range(8)]
            for t in (malignant, benign)
        ]
        assert score == pytest.approx(cosine(image, texts[0]) - cosine(image, texts[1]), abs=1e-5)


def test_malignancy_without_projections_is_plain_cosine_and_equals_the_identity(arrays):
    v, malignant, benign = arrays
    plain = zero_shot.zero_shot_scores(v, malignant, benign)
    identity = zero_shot.zero_shot_scores(v, malignant, benign, np.eye(8), np.eye(8))
    np.testing.assert_allclose(plain, identity, atol=1e-6)
    assert plain[0] == pytest.approx(cosine(v[0], malignant) - cosine(v[0], benign), abs=1e-6)
    with pytest.raises(ValueError, match="belong together"):
        zero_shot.zero_shot_scores(v, malignant, benign, np.eye(8))


def test_detection_sentences_are_the_papers():
    assert prompts.DETECTION.positive == ("This is a colon with polyps.",)
    assert prompts.DETECTION.negative == ("This is a normal background.",)


def test_prompt_sets():
    assert list(prompts.MALIGNANCY) == ["P0", "P1", "P2"]
    assert prompts.HEADLINE == "P2"
    headline = prompts.MALIGNANCY["P2"]
    assert min(len(headline.negative), len(headline.positive)) >= 3
    sentences = [*headline.negative, *headline.positive]
    assert len(set(sentences)) == len(sentences)
    for sentence in sentences:
        assert len(sentence.split()) <= 40
        without_codes = re.sub(r"non-neoplastic pattern|regular neoplastic pattern", "", sentence)
        assert not re.search(
            r"cancer|carcinoma|adenoma|hyperplas|malign|benign|neoplas|tumou?r|dysplas|serrated",
            without_codes,
            re.IGNORECASE,
        ), sentence


def test_headline_prompts_span_small_lesions_in_both_classes():
    """Three of four neoplastic polyps are below 10 mm: size must not be the whole difference."""
    for side in (prompts.MALIGNANCY["P2"].negative, prompts.MALIGNANCY["P2"].positive):
        assert any(re.search(r"\b[1-9] mm|diminutive|small", sentence) for sentence in side)


@pytest.mark.parametrize(
    "content, named",
    [
        ("{", "cannot be read"),
        ("[]", "detection"),
        ('{"polyps": {}}', "nothing else"),
        ('{"detection": {"A": {"positive": ["x"]}}}', "the set A"),
        ('{"detection": {"A": {"positive": ["x"], "negative": []}}}', "the set A"),
        (
            '{"malignancy": {"A": {"positive": ["x"], "negative": ["y"]},'
            ' "B": {"positive": ["x"], "negative": ["y"]}}}',
            "headline has to be one of A, B",
        ),
    ],
)
def test_a_broken_prompt_file_is_one_sentence(tmp_path, content, named):
    (tmp_path / "p.json").write_text(content)
    with pytest.raises(UserError, match=named):
        prompts.read_prompts(tmp_path / "p.json")


def test_a_prompt_file_replaces_the_tasks_it_names(tmp_path):
    sets = '{"detection": {"A": {"positive": ["x", "z"], "negative": ["y"]}}}'
    (tmp_path / "p.json").write_text(sets)
    read = prompts.read_prompts(tmp_path / "p.json")
    assert read["detection"].sets["A"].positive == ("x", "z")
    assert read["detection"].headline == "A"
    assert read["malignancy"] is prompts.PROMPTS["malignancy"]
