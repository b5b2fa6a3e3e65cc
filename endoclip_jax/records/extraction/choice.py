"""Which extractor reads the reports: the rules, a language model, or both to compare."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from endoclip_jax.errors import UserError
from endoclip_jax.records.extraction.llm import LLMExtractor, LLMSettings, Outcome
from endoclip_jax.records.extraction.llm_prompt import FORMS, prompt_digest
from endoclip_jax.records.extraction.rules import EXTRACTOR, extract

NAMES = ("rules", "llm", "both")


@dataclass(frozen=True)
class Choice:
    """An extractor's name and, unless it is the rules alone, the server's settings; picklable."""

    name: str = "rules"
    llm: LLMSettings | None = None

    def reader(self) -> Callable[[str], dict]:
        """Reads one report at a time, as `extract` does; answers in the cache are not asked again.

        With "both" the rules' reading is the one that counts.
        """
        if self.name != "llm" or self.llm is None:
            return extract
        extractor = LLMExtractor(self.llm)
        return lambda report: extractor.extract(report).extraction

    def read_all(
        self, reports: Sequence[str], progress: Callable[[int, int], None] | None = None
    ) -> list[Outcome]:
        """Outcomes of the chosen extractor in order; with "both" the model's."""
        if self.llm is None:
            return [Outcome(extract(report), "rules") for report in reports]
        return LLMExtractor(self.llm).extract_all(reports, progress)

    def card(self) -> dict[str, Any]:
        """What a data card says of the extractor."""
        if self.name != "llm" or self.llm is None:
            return dict(EXTRACTOR)
        return {
            "name": "llm",
            "version": prompt_digest()[:12],
            "model": self.llm.model,
            "fallback": dict(EXTRACTOR),
        }


def add_flags(parser: argparse.ArgumentParser) -> None:
    """``--extractor`` and ``--llm.*``."""
    add = parser.add_argument
    add("--extractor", choices=NAMES, default="rules", help="who reads the reports (default rules)")
    add("--llm.base_url", dest="llm_base_url", help="OpenAI-compatible server, http://host:port/v1")
    add("--llm.model", dest="llm_model", help="name of the model on that server")
    add("--llm.api_key_env", dest="llm_api_key_env", default="", help="variable that holds the key")
    add(
        "--llm.response_format", dest="llm_response_format", choices=("auto", *FORMS),
        default="auto", help="how JSON is asked for (default: what the server takes)",
    )  # fmt: skip
    add("--llm.concurrency", dest="llm_concurrency", type=int, default=4, help="requests at a time")
    add("--llm.timeout", dest="llm_timeout", type=float, default=300, help="seconds an answer")
    add("--llm.max_tokens", dest="llm_max_tokens", type=int, default=4096, help="of an answer")
    add("--llm.cache", dest="llm_cache", type=Path, help="folder that keeps the answers")


def from_flags(flags: argparse.Namespace, private: Path) -> Choice:
    """The choice made on a command line; answers are kept in ``private`` unless said otherwise."""
    given = [
        name for name in ("base_url", "model", "api_key_env", "cache")
        if getattr(flags, f"llm_{name}")
    ]  # fmt: skip
    if flags.extractor == "rules":
        if given:
            raise UserError(f"--llm.{given[0]} needs --extractor=llm or --extractor=both")
        return Choice()
    if not (flags.llm_base_url and flags.llm_model):
        raise UserError(f"--extractor={flags.extractor} needs --llm.base_url and --llm.model")
    if flags.llm_concurrency < 1 or flags.llm_timeout <= 0 or flags.llm_max_tokens < 1:
        raise UserError("--llm.concurrency, --llm.timeout and --llm.max_tokens must be above zero")
    settings = LLMSettings(
        base_url=flags.llm_base_url,
        model=flags.llm_model,
        cache=flags.llm_cache or private / "llm_cache",
        api_key_env=flags.llm_api_key_env,
        response_format=flags.llm_response_format,
        concurrency=flags.llm_concurrency,
        timeout_s=flags.llm_timeout,
        max_tokens=flags.llm_max_tokens,
    )
    return Choice(flags.extractor, settings)


def destination(base_url: str) -> str:
    """Host and port that reports go to, with a warning if they travel in the clear."""
    url = urlsplit(base_url)
    local = url.hostname in ("localhost", "127.0.0.1", "::1")
    clear = url.scheme == "http" and not local
    return f"{url.hostname}:{url.port or url.scheme}" + (", NOT encrypted" if clear else "")
