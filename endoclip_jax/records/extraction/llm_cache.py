"""Answers on disk, so that a run that was broken off asks nothing twice.

One file an answer, under the SHA-256 of all that decides it: prompt, schema, model, report, and
the refused answers before it. A file appears only when whole. The folder holds what models said
of reports and is readable by its owner only.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from endoclip_jax.errors import UserError
from endoclip_jax.records.extraction.llm_client import Answer, as_json
from endoclip_jax.records.extraction.llm_prompt import Message, prompt_digest


class AnswerCache:
    """Answers by key; safe for threads of one process and for several processes."""

    def __init__(self, folder: Path):
        self._folder = folder
        missing = [part for part in (folder, *folder.parents) if not part.exists()]
        try:
            for part in reversed(missing):
                part.mkdir(exist_ok=True, mode=0o700)
        except OSError as error:
            raise UserError(f"{folder} cannot be made for the answers ({error})") from error

    def get(self, key: str) -> Answer | None:
        """The stored answer, or None; a file that cannot be read counts as none."""
        try:
            stored = json.loads(self.path(key).read_text("utf-8"))
            return Answer(stored["text"], stored["complete"], stored["seconds"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def put(self, key: str, answer: Answer) -> None:
        """Stores an answer; on return it is on the disk."""
        path = self.path(key)
        path.parent.mkdir(exist_ok=True, mode=0o700)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(as_json(answer), file, ensure_ascii=False)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)

    def path(self, key: str) -> Path:
        """The file of an answer."""
        return self._folder / key[:2] / f"{key}.json"


def folder_of_answer(file: Path) -> Path:
    """The cache's folder that an answer's file lies in."""
    return file.parent.parent


def answers_folder(private: Path) -> Path:
    """Where answers are kept unless the user says otherwise."""
    return private / "llm_cache"


def answer_key(model: str, max_tokens: int, report: str, follow_ups: Sequence[Message] = ()) -> str:
    """Key of the answer to a report after the refused answers in ``follow_ups``."""
    parts = [prompt_digest(), model, str(max_tokens), unicodedata.normalize("NFKC", report)]
    parts += [json.dumps(message, sort_keys=True, ensure_ascii=False) for message in follow_ups]
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()
