"""A Hugging Face folder as transformers writes it, and ways to spoil it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_models import small_clip


@pytest.fixture(scope="session")
def hf_model():
    return small_clip()


@pytest.fixture(scope="session")
def hf_folder(hf_model, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("foreign") / "clip"
    hf_model.save_pretrained(folder)
    return folder


@pytest.fixture
def edited(tmp_path):
    """`edited(folder, "config.json", {"text_config.vocab_size": 7})`: a copy with keys changed."""

    def edit(folder: Path, name: str, changes: dict) -> Path:
        copy = tmp_path / "edited"
        copy.mkdir()
        for path in folder.iterdir():
            if path.name != name:
                (copy / path.name).symlink_to(path)
        content = json.loads((folder / name).read_text())
        for key, value in changes.items():
            *sections, last = key.split(".")
            section = content
            for part in sections:
                section = section[part]
            section[last] = value
        (copy / name).write_text(json.dumps(content))
        return copy

    return edit
