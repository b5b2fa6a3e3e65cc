from __future__ import annotations

import gzip
import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from endoclip_jax.data import tokenizer as tokenizer_module
from endoclip_jax.data.tokenizer import BUCKETS, END, START, load_tokenizer
from endoclip_jax.errors import UserError

FOLDER = Path(__file__).parents[2] / "third_party" / "openai_clip_bpe"

# Ids of OpenAI's own SimpleTokenizer.
OPENAI = {
    "A 5 mm sessile polyp in the sigmoid colon, NBI: NICE type 2.": [
        320, 276, 2848, 567, 690, 989, 6833, 335, 530, 518, 872, 617, 1014, 29050, 267, 77, 3035,
        281, 1805, 3877, 273, 269],
    "adenoma; Paris 0-Is": [28669, 5358, 282, 3445, 271, 268, 533],
    "a photo of a cat": [320, 1125, 539, 320, 2368],
    "café – naïve ½ 中文  息肉": [
        15304, 1224, 1097, 35689, 563, 33613, 19759, 255, 29032, 485, 162, 223, 107, 164, 224, 487],
    "don't I'll we've x'd'd": [847, 713, 328, 1342, 649, 1200, 343, 1896, 1896],
    "1234 0-IIa+IIc ~ 3×4mm²": [
        272, 273, 274, 275, 271, 268, 72, 1073, 266, 72, 1029, 349, 274, 16165, 275, 2848, 41175],
    "": [],
    "  A\n\tb  ": [320, 321],
    "Hyper-plastic (NICE 1), 20%...!!": [
        22146, 268, 6102, 263, 1805, 272, 2361, 273, 271, 4, 39915],
    "ÄÖÜ ß 𝒳 👍": [10896, 7255, 47177, 127, 509, 43387, 367, 4201],
}  # fmt: skip


def test_ids_are_openais():
    ids, truncated = load_tokenizer()(list(OPENAI), 77)
    assert truncated == 0
    assert ids.dtype == np.int32
    for row, expected in zip(ids.tolist(), OPENAI.values(), strict=True):
        assert row == [START, *expected, END] + [0] * (75 - len(expected))


def bpe_by_loops(vocabulary, text):
    """Byte-pair encoding as first described: merge the pair of lowest rank until none is left."""
    byte_symbols = tokenizer_module._byte_symbols()
    printable = [b for b in range(256) if chr(b) in byte_symbols]
    others = [b for b in range(256) if b not in printable]
    symbol = {b: chr(b) for b in printable}
    symbol |= {b: chr(256 + i) for i, b in enumerate(others)}
    merges = [tuple(line.split()) for line in vocabulary.split("\n")[1:48895]]
    rank = {pair: i for i, pair in enumerate(merges)}
    symbols = [symbol[b] for b in printable + others]
    ids = {s: i for i, s in enumerate(symbols + [s + "</w>" for s in symbols])}
    ids |= {a + b: 512 + i for i, (a, b) in enumerate(merges)}
    tokens = []
    for word in re.findall(r"[a-z]+|[0-9]|[^\sa-z0-9]+", text.lower()):
        parts = [symbol[b] for b in word.encode()]
        parts[-1] += "</w>"
        while len(parts) > 1:
            pairs = list(itertools.pairwise(parts))
            best = min(pairs, key=lambda pair: rank.get(pair, len(rank)))
            if best not in rank:
                break
            merged, i = [], 0
            while i < len(parts):
                if i + 1 < len(parts) and (parts[i], parts[i + 1]) == best:
                    merged.append(parts[i] + parts[i + 1])
                    i += 2
                else:
                    merged.append(parts[i])
                    i += 1
            parts = merged
        tokens += [ids[part] for part in parts]
    return tokens


VOCABULARY = gzip.decompress((FOLDER / tokenizer_module.VOCABULARY_FILE).read_bytes()).decode()


def test_ids_match_plain_byte_pair_encoding():
    texts = [
        "A diminutive pale sessile polyp with a smooth surface, NICE type 1.",
        "Granular-nodular mixed lateral spreading tumour (LST-G), 35 mm; Kudo IIIL + IV!",
        "xqzv pseudodepressed erythematous 0-IIa+IIc ###",
    ]
    ids, _ = load_tokenizer()(texts, 77)
    for text, row in zip(texts, ids.tolist(), strict=True):
        assert row[1 : row.index(END)] == bpe_by_loops(VOCABULARY, text)


@given(st.lists(st.integers(0, 120), max_size=6))
def test_buckets_truncation_and_the_end_token(lengths):
    texts = [" ".join(["polyp"] * length) for length in lengths]
    tokenizer = load_tokenizer()
    per_word = 2  # "polyp" is two tokens
    needed = [per_word * length + 2 for length in lengths]
    ids, truncated = tokenizer(texts)
    longest = max(needed, default=0)
    assert ids.shape == (len(texts), min((b for b in BUCKETS if b >= longest), default=77))
    assert truncated == sum(n > 77 for n in needed)
    for row, need in zip(ids, needed, strict=True):
        end = min(need, ids.shape[1]) - 1
        assert row[0] == START
        assert row[end] == END
        assert (row[end + 1 :] == 0).all()
        assert (row[:end] != END).all()


def test_a_given_length_cuts_and_counts():
    tokenizer = load_tokenizer()
    whole, _ = tokenizer(["a large red lobulated polyp", "a polyp"], 77)
    cut, truncated = tokenizer(["a large red lobulated polyp", "a polyp"], 6)
    assert truncated == 1
    np.testing.assert_array_equal(cut[0, :5], whole[0, :5])
    assert cut[0, 5] == END
    np.testing.assert_array_equal(cut[1], whole[1, :6])
    with pytest.raises(UserError, match="78"):
        tokenizer(["x"], 78)


def test_a_text_cannot_smuggle_in_the_end_token():
    ids, _ = load_tokenizer()(["a <|endoftext|> b <|startoftext|>"])
    assert (ids[0] == END).sum() == 1
    assert (ids[0] == START).sum() == 1


def test_the_hash_is_that_of_the_file_and_of_its_readme():
    sha256 = load_tokenizer().sha256
    assert sha256 == tokenizer_module.VOCABULARY_SHA256
    assert sha256 in (FOLDER / "README.md").read_text(encoding="utf-8")
    assert "OpenAI" in (FOLDER / "LICENSE").read_text(encoding="utf-8")


def test_another_or_no_vocabulary_is_told(tmp_path, monkeypatch):
    package = tmp_path / "endoclip_jax"
    installed = package / "_third_party" / "openai_clip_bpe"
    installed.mkdir(parents=True)
    monkeypatch.setattr("endoclip_jax.__file__", str(package / "__init__.py"))
    load = load_tokenizer.__wrapped__
    with pytest.raises(UserError, match="missing"):
        load()
    genuine = (FOLDER / tokenizer_module.VOCABULARY_FILE).read_bytes()
    file = installed / tokenizer_module.VOCABULARY_FILE
    file.write_bytes(genuine)
    assert load().sha256 == tokenizer_module.VOCABULARY_SHA256
    file.write_bytes(genuine[:-1])
    with pytest.raises(UserError, match="not CLIP's vocabulary"):
        load()
