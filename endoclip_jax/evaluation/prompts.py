"""The sentences a zero-shot score is made from: data, fixed before any test set was looked at.

Detection uses the two sentences that stage 1 trains on (Endo-CLIP, section 2.1). Malignancy here
means *non-neoplastic against adenoma or worse* (Vienna 1 against 3, 4, 5; Vienna 2 is left out), so
words of cancer would ask the wrong question. `data/prompts.json` holds three sets, always reported
side by side:

P0  the naive pair;
P1  the same pair in the words of pathology;
P2  ensembles in the style of the descriptions that the text tower has been trained on. They are
    written from what guidelines say of the two classes (NICE and JNET tables: pale, flat, mucus
    cap, indistinct border; red, lobulated, villous, stalked, laterally spreading, ulcerated), and
    both span small and larger lesions, so that size alone does not decide.

A file of the same form replaces the sets of the tasks it names:

    {"headline": {"malignancy": "A"},
     "malignancy": {"A": {"negative": ["...", ...], "positive": ["...", ...]}, ...},
     "detection": {...}}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from endoclip_jax.data.prompts import BACKGROUND, POLYPS
from endoclip_jax.errors import UserError

TASKS = ("detection", "malignancy")


@dataclass(frozen=True)
class PromptSet:
    """The sentences of each class, averaged as unit text features; positive: polyp, malignant."""

    name: str
    negative: tuple[str, ...]
    positive: tuple[str, ...]


@dataclass(frozen=True)
class Prompts:
    """The prompt sets of one task, and which of them is its headline."""

    sets: Mapping[str, PromptSet]
    headline: str


def read_prompts(path: str | Path) -> dict[str, Prompts]:
    """The prompts of each task in a file, and those of this package for tasks it leaves out.

    Raises:
      UserError: for a file that cannot be read or is not of the form above.
    """
    try:
        content: Any = json.loads(Path(path).expanduser().read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"the prompts {path} cannot be read ({error})") from None
    unknown = set(content) - {*TASKS, "headline"} if isinstance(content, Mapping) else {"content"}
    if unknown or not any(task in content for task in TASKS):
        raise UserError(
            f"{path} has to hold prompt sets under “detection” or “malignancy”, and nothing else "
            "but “headline”"
        )
    return PROMPTS | {
        task: _prompts(content[task], content.get("headline", {}).get(task), f"{path}, {task}")
        for task in TASKS
        if task in content
    }


def _prompts(sets: Any, headline: str | None, where: str) -> Prompts:
    if not isinstance(sets, Mapping) or not sets:
        raise UserError(f"{where}: prompt sets are {{name: {{negative, positive}}}}")
    read = {}
    for name, classes in sets.items():
        if (
            not isinstance(classes, Mapping)
            or set(classes) != {"negative", "positive"}
            or not all(_are_sentences(sentences) for sentences in classes.values())
        ):
            raise UserError(
                f"{where}: the set {name} has to hold a list of sentences under “negative” and "
                "one under “positive”"
            )
        read[name] = PromptSet(name, tuple(classes["negative"]), tuple(classes["positive"]))
    if headline is None and len(read) == 1:
        headline = next(iter(read))
    if headline is None or headline not in read:
        raise UserError(f"{where}: the headline has to be one of {', '.join(read)}")
    return Prompts(read, headline)


def _are_sentences(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(x, str) and x for x in value)


def _packaged() -> Prompts:
    text = (
        resources.files("endoclip_jax.evaluation").joinpath("data/prompts.json").read_text("utf-8")
    )
    content = json.loads(text)
    return _prompts(content["malignancy"], content["headline"]["malignancy"], "data/prompts.json")


DETECTION = PromptSet("stage 1", negative=(BACKGROUND,), positive=(POLYPS,))
PROMPTS: dict[str, Prompts] = {
    "detection": Prompts({DETECTION.name: DETECTION}, DETECTION.name),
    "malignancy": _packaged(),
}
MALIGNANCY: Mapping[str, PromptSet] = PROMPTS["malignancy"].sets
HEADLINE = PROMPTS["malignancy"].headline
