"""What only shards allow, against the cohort's own truth and against single, unpadded calls."""

from __future__ import annotations

import dataclasses
import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from endoclip_jax.data.tokenizer import load_tokenizer
from endoclip_jax.evaluation.evaluate import MALIGNANT
from endoclip_jax.evaluation.examinations import (
    FrameFeatures,
    attention_against_truth,
    attention_within,
    described_polyps,
    items_shown,
    retrieval,
)
from endoclip_jax.evaluation.frame_sets import SplitFrames, SplitPolyps
from endoclip_jax.evaluation.subjects import Subject
from endoclip_jax.models.clip import CLIP, DEMO
from endoclip_jax.models.cross_attention import CrossAttention
from endoclip_jax.records.attributes import BIT_NAMES
from endoclip_jax.shards.index import Index
from endoclip_jax.stages import cases

DIM = 8
TOKENIZER = load_tokenizer()


class Words(Subject):
    """Every sentence has a vector of its own, without a text tower."""

    def texts(self, tokenizer, sentences):
        seeds = [int(hashlib.sha256(s.encode()).hexdigest()[:8], 16) for s in sentences]
        vectors = np.stack([np.random.default_rng(seed).normal(size=DIM) for seed in seeds])
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def index(tiny_shards):
    return Index.open(tiny_shards)


@pytest.fixture(scope="module")
def rows(index):
    return index.rows("train")


@pytest.fixture(scope="module")
def subject():
    module = CrossAttention(DIM)
    v, mask = jnp.zeros((1, 2, DIM)), jnp.ones((1, 2), bool)
    params = module.init(jax.random.key(0), v, mask, v, mask, method="similarity")["params"]
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: np.asarray(x + 0.3 * rng.normal(size=x.shape)), params)
    params = jax.tree.map(lambda x: x.astype(np.float32), params)
    return Words("words", CLIP(DEMO), {}, attention=(module, params))


def knowing(index, rows, subject):
    """Features of all frames: those of a described polyp equal its sentence's vector."""
    rng = np.random.default_rng(1)
    frames = np.concatenate([index.frame_rows(int(row)) for row in rows])
    features = rng.normal(size=(len(frames), DIM)).astype(np.float32)
    for place, frame in enumerate(frames):
        record = int(index.frames["record"][frame])
        item = items_shown(index, record, np.asarray([frame]))[0]
        if item >= 0:
            sentence = index.description(int(index.item_rows(record)[item]))
            features[place] = subject.texts(TOKENIZER, [sentence])[0]
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return FrameFeatures(features, frames)


def test_described_polyps_are_frames_of_the_polyp_that_the_item_describes(index, rows):
    frames, items = described_polyps(index, rows)
    assert len(frames) > 5
    for frame, item in zip(frames, items, strict=True):
        record = int(index.frames["record"][frame])
        assert record == index.items["record"][item] and record in rows
        assert (
            items_shown(index, record, np.asarray([frame]))[0] + index.records["first_item"][record]
            == item
        )


def test_features_that_know_their_sentence_retrieve_it(index, rows, subject):
    found = retrieval(
        subject, TOKENIZER, index, rows, knowing(index, rows, subject), seed=0, draws=20
    )
    assert found["image to text"].recall[1].value == 1
    assert found["text to image"].recall[1].value == 1
    plain = FrameFeatures(np.ones((3, DIM), np.float32), np.arange(3))
    assert retrieval(subject, TOKENIZER, index, rows[:0], plain, seed=0, draws=20) == {}


def test_attention_in_padded_batches_is_that_of_each_patient_alone(index, rows, subject):
    features = knowing(index, rows, subject)
    found = attention_within(subject, TOKENIZER, index, cases.multi_polyp(index, rows), features)
    assert len(found) > 3
    module, params = subject.attention
    for patient in (found[0], found[-1]):
        v, frames = features.of(patient.frames)
        np.testing.assert_array_equal(frames, index.frame_rows(patient.record))
        t = subject.texts(TOKENIZER, [index.description(int(item)) for item in patient.items])
        alone = module.apply(
            {"params": params}, jnp.asarray(v[None]), jnp.ones((1, len(v)), bool),
            jnp.asarray(t[None]), jnp.ones((1, len(t)), bool), method="attention_weights",
        )  # fmt: skip
        np.testing.assert_allclose(patient.text_to_image, alone.text_to_image[0], atol=1e-6)
        np.testing.assert_allclose(patient.image_to_text, alone.image_to_text[0], atol=1e-6)


def test_attention_of_matching_frames_is_right_and_a_model_without_has_none(index, rows, subject):
    module, params = subject.attention
    plain = jax.tree.map(lambda x: np.eye(DIM, dtype=np.float32), params)
    matching = dataclasses.replace(subject, attention=(module, plain))
    multi = cases.multi_polyp(index, rows)
    found = attention_within(matching, TOKENIZER, index, multi, knowing(index, rows, subject))
    judged = attention_against_truth(index, found, seed=0, draws=20)
    assert judged["among all frames"].auroc.value > 0.95
    assert judged["among frames with a polyp"].auroc.value > 0.95
    without = dataclasses.replace(subject, attention=None)
    assert attention_within(without, TOKENIZER, index, multi, knowing(index, rows, subject)) == []


def test_polyps_of_a_split_have_their_classes(index, rows):
    polyps = SplitPolyps(index, rows)
    truth = polyps.truth(polyps.labelled_frames())
    assert len(truth.frames) == len(set(truth.frames.tolist())) > 5
    assert np.isin(truth.vienna, (1, 2, *MALIGNANT)).all()
    of_frames = SplitFrames(index, rows).truth(truth.frames)
    assert of_frames.polyp.all()
    np.testing.assert_array_equal(of_frames.vienna, truth.vienna)
    np.testing.assert_array_equal(of_frames.patients, truth.patients)
    np.testing.assert_array_equal(of_frames.strata["size_class"], truth.strata["size_class"])


def test_size_classes_are_those_that_the_report_gives(index, rows):
    frames, items = described_polyps(index, rows)
    truth = SplitFrames(index, rows).truth(frames)
    for size, item in zip(truth.strata["size_class"], items, strict=True):
        bits = index.items["bits_text"][item]
        named = {BIT_NAMES[b] for b in np.flatnonzero(bits) if BIT_NAMES[b].startswith("size_")}
        assert ({f"size_class.{size}"} == named) if len(named) == 1 else size == ""
    everything = SplitFrames(index, rows)
    whole = everything.truth(everything.labelled_frames())
    assert set(whole.strata["size_class"][whole.polyp == 0]) == {""}
