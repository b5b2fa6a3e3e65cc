"""Evaluates one checkpoint on a folder of labelled frames, apart from any run."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from endoclip_jax.data.tokenizer import load_tokenizer
from endoclip_jax.errors import UserError
from endoclip_jax.evaluation.evaluate import (
    BENIGN,
    MALIGNANT,
    TaskResult,
    evaluate_detection,
    evaluate_malignancy,
)
from endoclip_jax.evaluation.frame_sets import FolderFrames
from endoclip_jax.evaluation.results import format_table, write_results
from endoclip_jax.evaluation.subjects import Subject
from endoclip_jax.models.clip import CLIP, CLIPConfig, initial_params
from endoclip_jax.training import checkpoints


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="evaluate.py", description="Scores labelled frames with one checkpoint, zero-shot."
    )
    parser.add_argument("--checkpoint", type=Path, required=True, help="a stage's folder or a step")
    parser.add_argument("--data", type=Path, required=True, help="a folder with labels.csv")
    parser.add_argument("--out", type=Path, help="where results.json goes; default: nowhere")
    parser.add_argument("--seed", type=int, default=0, help="of bootstrap and few-shot draws")
    parser.add_argument(
        "--untrained", action="store_true", help="also the same model with its initial weights"
    )
    return parser.parse_args(argv)


def load_subject(path: Path, name: str) -> Subject:
    """A model from one of our checkpoints, refused if its tokenizer is not this one.

    Raises:
      UserError: where there is no checkpoint, or it was trained with another tokenizer.
    """
    folder, step = checkpoints.resolve_checkpoint(path)
    params, meta = checkpoints.load_params(folder, step)
    if meta["tokenizer"] != load_tokenizer().sha256:
        raise UserError(f"{path} was trained with another tokenizer than this version's")
    image = text = None
    if meta["config"].get("attention", "none") != "none":
        image = params["cross"]["text_to_image"]["value"]["kernel"]
        text = params["cross"]["image_to_text"]["value"]["kernel"]
    model = CLIP(CLIPConfig.from_dict(meta["model"]))
    return Subject(name, model, params["clip"], image, text)


def untrained(subject: Subject, seed: int) -> Subject:
    """The same architecture with its initial weights: what it gets without learning."""
    return Subject("untrained", subject.model, initial_params(subject.model, seed))


def evaluate_labelled(options: argparse.Namespace) -> None:
    """Runs the tasks that the folder's labels allow and prints (and writes) the results."""
    began = time.monotonic()
    subject = load_subject(options.checkpoint, options.checkpoint.resolve().name)
    subjects = [subject, *([untrained(subject, options.seed)] if options.untrained else [])]
    frames = FolderFrames.open(options.data)
    labelled = frames.labelled
    protocol = {"seed": options.seed, "draws": 1000, "with_few_shot": True}
    results: list[TaskResult] = []
    if labelled.polyp.any() and not labelled.polyp.all():
        results.append(evaluate_detection(subjects, frames, load_tokenizer(), **protocol))
    classes = set(labelled.vienna.tolist())
    if classes & set(BENIGN) and classes & set(MALIGNANT):
        results.append(evaluate_malignancy(subjects, frames, load_tokenizer(), **protocol))
    if not results:
        raise UserError(
            f"{options.data} has neither frames with and without a polyp nor polyps of Vienna "
            "class 1 and of 3, 4 or 5: there is nothing to evaluate"
        )
    rows = [row for result in results for row in result.rows]
    print(format_table(rows))
    for note in (note for result in results for note in result.notes):
        print(f"note: {note}")
    if options.out is not None:
        seconds = {"evaluation": time.monotonic() - began}
        write_results(options.out / "results.json", rows, seed=options.seed, seconds=seconds)
        print(f"results: {options.out / 'results.json'}")
