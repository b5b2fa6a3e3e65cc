"""Which extractor reads the reports: the rules, a language model, or both to compare."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from endoclip_jax.errors import UserError
from endoclip_jax.records.extraction.compare import differences
from endoclip_jax.records.extraction.llm import LLMExtractor, LLMSettings, Outcome
from endoclip_jax.records.extraction.llm_cache import answers_folder
from endoclip_jax.records.extraction.llm_prompt import FORMS, prompt_digest
from endoclip_jax.records.extraction.reading import Reading
from endoclip_jax.records.extraction.rules import EXTRACTOR, extract

NAMES = ("rules", "llm", "both")


@dataclass(frozen=True)
class Choice:
    """An extractor's name and, unless it is the rules alone, the server's settings; picklable."""

    name: str = "rules"
    llm: LLMSettings | None = None

    def read_all(
        self, reports: Sequence[str], progress: Callable[[int, int], None] | None = None
    ) -> list[Outcome]:
        """Outcomes of the chosen extractor in order; with "both" the model's."""
        if self.llm is None:
            return [Outcome(extract(report), "rules") for report in reports]
        return LLMExtractor(self.llm).extract_all(reports, progress)

    def readings(self, reports: Sequence[str]) -> list[Reading]:
        """Readings in order; with "both" the rules' count and are compared with the model's.

        Answers in the cache are not asked for again.
        """
        outcomes = self.read_all(reports)
        if self.name == "both":
            return [_compared(r, out) for r, out in zip(reports, outcomes, strict=True)]
        return [
            Reading(
                out.extraction,
                out.source,
                out.answers > 1,
                out.reworded,
                out.fallback,
                answers=out.kept,
            )
            for out in outcomes
        ]

    def card(self) -> dict[str, Any]:
        """What a data card says of the extractor; another card is another extractor."""
        if self.llm is None:
            return dict(EXTRACTOR)
        model = {
            "name": "llm",
            "model": self.llm.model,
            "max_tokens": self.llm.max_tokens,
            "prompt_and_schema": prompt_digest()[:16],
        }
        if self.name == "both":
            return {**EXTRACTOR, "compared_with": model}
        return {**model, "fallback": dict(EXTRACTOR)}


def describe(card: Mapping[str, Any]) -> str:
    """An extractor's card in a few words."""
    words = f"{card['name']} {card.get('version', card.get('model', ''))}".strip()
    if "prompt_and_schema" in card:
        words += f" (prompt {card['prompt_and_schema']}, {card['max_tokens']} tokens)"
    for key, preposition in (("fallback", "then"), ("compared_with", "compared with")):
        if key in card:
            words += f", {preposition} {describe(card[key])}"
    return words


def disagreement(rules: Mapping[str, Any], model: Outcome) -> list[str]:
    """Where a model's outcome differs from the rules' reading; empty if nowhere."""
    if model.fallback:
        return [f"the model's answer was not used: {model.fallback}"]
    return differences(rules, model.extraction)


def _compared(report: str, model: Outcome) -> Reading:
    rules = extract(report)
    found = disagreement(rules, model)
    read = model.extraction if found and not model.fallback else None
    return Reading(
        rules,
        "rules",
        model.answers > 1,
        model.reworded,
        model.fallback,
        tuple(found),
        read,
        model.kept,
    )


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
        cache=flags.llm_cache or answers_folder(private),
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
