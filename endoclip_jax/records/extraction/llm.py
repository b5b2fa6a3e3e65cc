"""Extraction by a language model behind an OpenAI-compatible server; the rules stand by.

The model copies, code decides: each answer is checked against the schema and the report, handed
back with what is wrong with it, and at last given up. Nothing is asked that the cache holds.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

from endoclip_jax.errors import UserError
from endoclip_jax.records.extraction.llm_cache import AnswerCache, answer_key
from endoclip_jax.records.extraction.llm_check import check, reworded
from endoclip_jax.records.extraction.llm_client import Answer, ChatClient, ServerFailed
from endoclip_jax.records.extraction.llm_prompt import Message, first_messages, refused
from endoclip_jax.records.extraction.rules import extract, instructions

CORRECTIONS = 2


@dataclass(frozen=True)
class LLMSettings:
    """Where and how to ask; ``cache`` is the folder that keeps the answers.

    ``api_key_env`` names the environment variable that holds the server's key, if it wants one.
    """

    base_url: str
    model: str
    cache: Path
    api_key_env: str = ""
    response_format: str = "auto"
    concurrency: int = 4
    timeout_s: float = 300.0
    max_tokens: int = 4096
    tries: int = 7  # about a minute of pauses: a server that loads its model answers 503
    pause_s: float = 1.0


@dataclass(frozen=True)
class Outcome:
    """What was read in one report and by whom.

    ``fallback`` says why the rules' reading stands for the model's; ``answers`` is how many the
    model gave, ``asked`` how many of them came over the network in this run, ``seconds`` what the
    answers took when they were given. ``reworded`` is set if code had to write a description anew.
    ``kept`` are the files that keep the answers.
    """

    extraction: dict
    source: str
    answers: int = 0
    asked: int = 0
    seconds: float = 0.0
    reworded: bool = False
    fallback: str | None = None
    kept: tuple[Path, ...] = ()


class LLMExtractor:
    """Reads reports with a language model; may be used by several threads at once."""

    def __init__(self, settings: LLMSettings):
        key = os.environ.get(settings.api_key_env, "") if settings.api_key_env else None
        if key == "":
            raise UserError(f"--llm.api_key_env={settings.api_key_env}: the variable is not set")
        self.settings = settings
        self.client = ChatClient(
            settings.base_url,
            settings.model,
            api_key=key,
            form=settings.response_format,
            max_tokens=settings.max_tokens,
            timeout_s=settings.timeout_s,
            tries=settings.tries,
            pause_s=settings.pause_s,
        )
        self._cache = AnswerCache(settings.cache)

    def extract(self, report: str) -> Outcome:
        """The model's reading if one of its answers holds, else the rules', marked as such.

        Raises ``UserError`` if the server cannot be asked at all.
        """
        rules = extract(report)
        injected = instructions(report)
        outcome = Outcome(rules, "rules")
        follow_ups: list[Message] = []
        for _ in range(1 + CORRECTIONS):
            try:
                answer, fresh, file = self._answer(report, follow_ups)
            except ServerFailed as error:
                return replace(outcome, fallback=f"server: {error}")
            outcome = replace(
                outcome,
                answers=outcome.answers + 1,
                asked=outcome.asked + fresh,
                seconds=outcome.seconds + answer.seconds,
                kept=(*outcome.kept, file),
            )
            judged = check(answer.text, report, rules, injected)
            problems = judged.problems
            if not answer.complete:
                problems = [f"the answer was cut off after {self.settings.max_tokens} tokens"]
            last = outcome.answers > CORRECTIONS
            if judged.extraction is not None and not problems and (last or not judged.wording):
                return replace(
                    outcome,
                    extraction=reworded(judged.extraction),
                    source="llm",
                    reworded=bool(judged.wording),
                )
            problems = problems + judged.wording
            follow_ups += refused(answer.text, problems)
        return replace(outcome, fallback=f"refused: {'; '.join(problems)}")

    def extract_all(
        self, reports: Sequence[str], progress: Callable[[int, int], None] | None = None
    ) -> list[Outcome]:
        """Outcomes in order, ``concurrency`` reports at a time; equal reports are asked once.

        ``progress`` is told how many of how many are done.
        """
        distinct = list(dict.fromkeys(reports))
        outcomes: dict[str, Outcome] = {}
        stop = threading.Event()

        def one(report: str) -> Outcome | None:
            return None if stop.is_set() else self.extract(report)

        with ThreadPoolExecutor(self.settings.concurrency, "extraction") as pool:
            futures = {pool.submit(one, report): report for report in distinct}
            try:
                for future in as_completed(futures):
                    outcome = future.result()
                    if outcome is not None:
                        outcomes[futures[future]] = outcome
                    if progress:
                        progress(len(outcomes), len(distinct))
            except BaseException:
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return [outcomes[report] for report in reports]

    def _answer(self, report: str, follow_ups: list[Message]) -> tuple[Answer, bool, Path]:
        """The answer after these follow-ups, whether it was asked for just now, and its file."""
        settings = self.settings
        key = answer_key(settings.model, settings.max_tokens, report, follow_ups)
        stored, file = self._cache.get(key), self._cache.path(key)
        if stored is not None:
            return stored, False, file
        answer = self.client.ask([*first_messages(report), *follow_ups])
        self._cache.put(key, answer)
        return answer, True, file
