"""The writer of the cohort's reports and the reader of reports share words, but no tables."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pytest

from endoclip_jax import synthetic
from endoclip_jax.records.extraction.lexicon import expand, lexicon
from endoclip_jax.synthetic import phrases_en, phrases_zh

LEXICON = json.loads(
    resources.files("endoclip_jax.records").joinpath("data/lexicon.json").read_text("utf-8")
)


def lists(node: object) -> Iterator[list[str]]:
    """Every list of phrases in nested tables."""
    if isinstance(node, dict):
        for value in node.values():
            yield from lists(value)
    elif isinstance(node, list | tuple):
        if node and all(isinstance(entry, str) for entry in node):
            yield list(node)
        for entry in node:
            yield from lists(entry)


def written(module) -> list[list[str]]:
    return [
        found for name, value in vars(module).items() if name.isupper() for found in lists(value)
    ]


def test_the_writer_reads_nothing_of_the_reader():
    for path in Path(synthetic.__file__).parent.glob("*.py"):
        names = set()
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom):
                names.add(node.module or "")
            elif isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
        assert not any("extraction" in name for name in names), path
        assert "lexicon.json" not in path.read_text("utf-8")


@pytest.mark.parametrize("module", [phrases_en, phrases_zh], ids=["en", "zh"])
def test_no_table_of_the_writer_is_one_of_the_reader(module):
    tables = [{word for term in terms for word in expand(term)} for terms in lists(LEXICON)]
    for phrases in written(module):
        assert set(phrases) not in tables


@pytest.mark.parametrize(("module", "words"), [(phrases_en, 2), (phrases_zh, 5)], ids=["en", "zh"])
def test_few_longer_phrases_are_terms_of_the_reader(module, words):
    """Terms of the field ("ascending colon") cannot be avoided; measured 15 % and 14 %."""
    phrases = {phrase.lower() for table in written(module) for phrase in table}
    length = len if module is phrases_zh else lambda phrase: len(phrase.split())
    longer = {phrase for phrase in phrases if length(phrase) >= words}
    shared = {phrase for phrase in longer if phrase in lexicon().terms}
    assert len(longer) > 80
    assert len(shared) < 0.2 * len(longer), shared
