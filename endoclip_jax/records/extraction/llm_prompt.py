"""What a language model is asked: messages, schema and the three ways to ask for JSON.

The texts are package data (``records/data/prompt``). A report is put between ``<report>`` tags and
cannot close them: it is data, whatever it says.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
from functools import cache
from importlib import resources
from typing import Any

from endoclip_jax.records.extraction.text import fold, language

SCHEMA_NAME = "colonoscopy_polyp_extraction"
SEED = 0

# How to ask for JSON, best first: OpenAI and vLLM take the first form, llama.cpp's server the
# second, and any server the third, which has the schema in the system message instead.
FORMS = ("json_schema", "json_object", "text")

_PLACEHOLDER = re.compile(r"\{(example_report|example_json|report)\}")
_TAG = re.compile(r"<(?=\s*/?\s*report\b)", re.IGNORECASE)

Message = dict[str, str]


def _read(name: str) -> str:
    return resources.files("endoclip_jax.records").joinpath(f"data/{name}").read_text("utf-8")


@cache
def full_schema() -> dict[str, Any]:
    """The extraction schema with its references put in place and its metadata left out."""
    schema = json.loads(_read("schema.json"))
    definitions = schema.pop("$defs")
    for key in ("$schema", "$id", "title"):
        schema.pop(key)

    def inlined(node: Any) -> Any:
        if isinstance(node, dict) and "$ref" in node:
            return inlined(definitions[node["$ref"].rsplit("/", 1)[1]])
        if isinstance(node, dict):
            return {key: inlined(value) for key, value in node.items()}
        return [inlined(value) for value in node] if isinstance(node, list) else node

    return inlined(schema)


@cache
def prompt_digest() -> str:
    """SHA-256 of everything but model and report that decides what is asked."""
    parts = [_read(f"prompt/{name}") for name in ("system.txt", "user.txt", "examples.json")]
    parts += [json.dumps(full_schema(), sort_keys=True), str(SEED)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def first_messages(report: str) -> list[Message]:
    """System and user message; Chinese reports are shown the Chinese example."""
    examples = json.loads(_read("prompt/examples.json"))
    example = examples["zh" if language(fold(report).text) == "zh" else "en"]
    values = {
        "example_report": example["report"],
        "example_json": json.dumps(
            example["output"], ensure_ascii=False, separators=(",", ":"), sort_keys=False
        ),
        # The blank keeps the text from closing the tag; evidence is compared without blanks.
        "report": _TAG.sub("< ", report),
    }
    # In one pass: a report that holds "{example_json}" stays as it is.
    user = _PLACEHOLDER.sub(lambda match: values[match[1]], _read("prompt/user.txt"))
    return [{"role": "system", "content": _read("prompt/system.txt")}, _user(user)]


def refused(answer: str, problems: list[str]) -> list[Message]:
    """The turn that hands an answer back with what is wrong with it."""
    listed = "\n".join(f"- {problem}" for problem in problems)
    return [
        {"role": "assistant", "content": answer},
        _user(
            f"This answer was refused by the validator:\n{listed}\n"
            "Correct these points and output the whole JSON object again, and nothing else."
        ),
    ]


def request_body(model: str, messages: list[Message], max_tokens: int, form: str) -> dict[str, Any]:
    """Body of a chat completion in one of ``FORMS``."""
    body: dict[str, Any] = {"model": model, "temperature": 0, "seed": SEED}
    body |= {"max_tokens": max_tokens, "messages": messages}
    schema = copy.deepcopy(full_schema())
    if form == "json_schema":
        named = {"name": SCHEMA_NAME, "strict": True, "schema": schema}
        body["response_format"] = {"type": "json_schema", "json_schema": named}
    elif form == "json_object":
        body["response_format"] = {"type": "json_object", "schema": schema}
    else:
        compact = json.dumps(schema, ensure_ascii=False, separators=(",", ":"))
        system = {**messages[0], "content": f"{messages[0]['content']}\n\nSchema:\n{compact}"}
        body["messages"] = [system, *messages[1:]]
    return body


def _user(content: str) -> Message:
    return {"role": "user", "content": content}
