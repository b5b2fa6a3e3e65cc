"""CLIP's byte-pair tokenizer, with OpenAI's vocabulary, on the `tokenizers` library.

Ids equal those of OpenAI's `SimpleTokenizer`, but for texts with mojibake or HTML entities, which
it repairs first and descriptions never hold, and for a literal `<|endoftext|>` in a text, which is
read as plain characters here and can end nothing. The vocabulary is CLIP's English one: Chinese
reports are described in English when they are extracted.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import tokenizers
from jaxtyping import Int32
from tokenizers import models, normalizers, pre_tokenizers

import endoclip_jax
from endoclip_jax.errors import UserError

CONTEXT_LENGTH = 77
BUCKETS = (16, 24, 32, 48, 64, CONTEXT_LENGTH)
VOCABULARY_SIZE = 49408
START, END, PADDING = 49406, 49407, 0
VOCABULARY_FILE = "bpe_simple_vocab_16e6.txt.gz"
VOCABULARY_SHA256 = "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a"

# Contractions, words, single digits, runs of everything else: OpenAI's pattern.
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


class Tokenizer:
    """`tokenizer(texts)` gives padded ids; `sha256` names the vocabulary they belong to.

    Attributes:
      symbols: every token by its id.
      merges: the pairs that are joined, in order of rank.
    """

    def __init__(self, vocabulary: bytes):
        self.sha256 = hashlib.sha256(vocabulary).hexdigest()
        self.symbols, self.merges = _symbols_and_merges(gzip.decompress(vocabulary).decode("utf-8"))
        self._encoder = _encoder(self.symbols, self.merges)

    def __call__(
        self, texts: Sequence[str], length: int | None = None
    ) -> tuple[Int32[np.ndarray, "n length"], int]:
        """Token ids of the texts, padded with 0, and how many texts had to be cut short.

        Every row is START, the text's tokens, END; a text too long loses its last tokens, never
        END. `length=None` takes the smallest bucket that holds the longest text: exact for CLIP,
        whose causal mask keeps what follows END from its feature.
        """
        encodings = self._encoder.encode_batch(list(texts), add_special_tokens=False)
        tokens = [encoding.ids for encoding in encodings]
        longest = 2 + max(map(len, tokens), default=0)
        if length is None:
            length = next((bucket for bucket in BUCKETS if bucket >= longest), CONTEXT_LENGTH)
        if not 2 <= length <= CONTEXT_LENGTH:
            raise UserError(
                f"A text length of {length} tokens is impossible: CLIP reads 2 to {CONTEXT_LENGTH}."
            )
        ids = np.full((len(tokens), length), PADDING, np.int32)
        for row, text in zip(ids, tokens, strict=True):
            kept = [START, *text[: length - 2], END]
            row[: len(kept)] = kept
        return ids, sum(len(text) + 2 > length for text in tokens)


@cache
def load_tokenizer() -> Tokenizer:
    """The tokenizer of the vocabulary in `third_party/openai_clip_bpe`, its hash checked."""
    package = Path(endoclip_jax.__file__).parent
    folders = [root / "openai_clip_bpe" for root in (package.parent / "third_party",
                                                     package / "_third_party")]  # fmt: skip
    path = next((f / VOCABULARY_FILE for f in folders if (f / VOCABULARY_FILE).is_file()), None)
    if path is None:
        raise UserError(
            f"CLIP's vocabulary {VOCABULARY_FILE} is missing in {' and '.join(map(str, folders))}: "
            "install endoclip_jax again."
        )
    vocabulary = path.read_bytes()
    if hashlib.sha256(vocabulary).hexdigest() != VOCABULARY_SHA256:
        raise UserError(
            f"{path} is not CLIP's vocabulary (its sha256 differs): install endoclip_jax again."
        )
    return Tokenizer(vocabulary)


def _symbols_and_merges(vocabulary: str) -> tuple[list[str], list[tuple[str, str]]]:
    # Symbols: 256 bytes, the same 256 ending a word, one for each merge, START and END.
    num_merges = VOCABULARY_SIZE - 2 * 256 - 2
    lines = vocabulary.split("\n")[1 : num_merges + 1]
    merges = [(first, second) for first, second in map(str.split, lines)]
    symbols = _byte_symbols()
    symbols += [symbol + "</w>" for symbol in symbols] + [a + b for a, b in merges]
    symbols += ["<|startoftext|>", "<|endoftext|>"]
    return symbols, merges


def _encoder(symbols: list[str], merges: list[tuple[str, str]]) -> tokenizers.Tokenizer:
    encoder = tokenizers.Tokenizer(
        models.BPE(
            vocab={symbol: i for i, symbol in enumerate(symbols)},
            merges=merges,
            end_of_word_suffix="</w>",
        )
    )
    encoder.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    encoder.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return encoder


def _byte_symbols() -> list[str]:
    """One printable character for each byte, in the order CLIP numbers them (GPT-2's table)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1)]
    printable += range(ord("®"), ord("ÿ") + 1)
    return [*map(chr, printable), *(chr(256 + i) for i in range(256 - len(printable)))]
