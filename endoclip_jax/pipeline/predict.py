"""Scores a folder of pictures with one model: what `launch/predict.py` does."""

from __future__ import annotations

import argparse
import csv
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from endoclip_jax.data.labelled import file_batches
from endoclip_jax.errors import UserError
from endoclip_jax.evaluation.prompts import DETECTION, MALIGNANCY
from endoclip_jax.library import load
from endoclip_jax.records.frames import IMAGE_SUFFIXES
from endoclip_jax.training.progress import shown_count

_PARTIAL = ".partial"


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="predict.py", description="Scores every picture of a folder for named classes."
    )
    add = parser.add_argument
    add("--checkpoint", required=True, help="a stage's folder, or any weights convert.py reads")
    add("--images", type=Path, required=True, help="a folder, searched with its sub-folders")
    add(
        "--prompts", default="detection",
        help="detection, P0, P1, P2; or sentences split by |; or a .json file "
        '{"class": ["sentence", ...]}; or a .txt file with a sentence a line',
    )  # fmt: skip
    add("--out", type=Path, default=Path("predictions.csv"), help="default: predictions.csv")
    add("--embeddings", type=Path, help="also writes the unit embeddings, as Parquet")
    add("--batch", type=int, default=64, help="frames at a time (default 64)")
    add(
        "--plain", action="store_true",
        help="the towers' own cosine, also where stage 3 trained another function",
    )  # fmt: skip
    return parser.parse_args(argv)


def predict(options: argparse.Namespace) -> None:
    """Writes one row a picture, batch by batch; files get their names only when they are whole.

    Raises:
      UserError: for nothing to score, prompts that cannot be read, or a place that cannot be
        written.
    """
    if options.batch < 1:
        raise UserError(f"--batch={options.batch} is impossible: take a positive number")
    classes = read_prompts(options.prompts)
    images = options.images.expanduser()
    paths = sorted(_pictures(images))
    if not paths:
        raise UserError(
            f"{images} has no pictures: expected a folder with {', '.join(sorted(IMAGE_SUFFIXES))}"
        )
    model = load(options.checkpoint)
    features = model.class_features(classes)
    batches = file_batches(paths, options.batch, model.config.vision.image_size)
    show = shown_count("scoring")
    with ExitStack() as stack:
        table = stack.enter_context(_Table(options.out, list(classes)))
        parquet = None
        if options.embeddings is not None:
            writer = _Parquet(options.embeddings, model.config.embed_dim, options.checkpoint)
            parquet = stack.enter_context(writer)
        for batch in batches.iterate():
            numbers = batch["frame"][batch["frame"] >= 0]
            valid = batch["valid"][: len(numbers)]
            names = [str(paths[number].relative_to(images)) for number in numbers]
            embeddings = model.embed_batches([batch])
            table.write(
                names, valid, model.score_features(embeddings, features, plain=options.plain)
            )
            if parquet is not None:
                parquet.write([n for n, ok in zip(names, valid, strict=True) if ok], embeddings)
            show(int(numbers[-1]) + 1, len(paths))
    unread = batches.corrupt
    print(
        f"{options.out}: {len(paths) - unread} frames scored for {len(classes)} classes"
        + (f", {unread} unreadable (their cells are empty)" if unread else "")
    )
    if options.embeddings is not None:
        print(f"{options.embeddings}: {len(paths) - unread} embeddings of {model.config.embed_dim}")


def read_prompts(given: str) -> dict[str, list[str]]:
    """Sentences by class: a set's name, a file, or sentences split by `|`, each its own class."""
    if given == "detection":
        return {"polyp": list(DETECTION.positive), "background": list(DETECTION.negative)}
    if given in MALIGNANCY:
        prompts = MALIGNANCY[given]
        return {"malignant": list(prompts.positive), "benign": list(prompts.negative)}
    path = Path(given).expanduser()
    if path.suffix in (".json", ".txt"):
        return _prompt_file(path)
    return _each_its_own([part.strip() for part in given.split("|")], f"--prompts={given}")


def _prompt_file(path: Path) -> dict[str, list[str]]:
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".txt":
            lines = [line.strip() for line in text.splitlines() if line.strip()]
            return _each_its_own(lines, str(path))
        content: Any = json.loads(text)
    except (OSError, ValueError) as error:
        raise UserError(f"the prompts {path} cannot be read ({error})") from None
    if (
        not isinstance(content, Mapping)
        or not content
        or not all(map(_sentences, content.values()))
    ):
        raise UserError(f'{path} has to hold {{"class": ["sentence", ...], ...}}')
    return {name: list(sentences) for name, sentences in content.items()}


def _sentences(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(x, str) for x in value)


def _each_its_own(sentences: Sequence[str], where: str) -> dict[str, list[str]]:
    if not all(sentences) or len(set(sentences)) < max(2, len(sentences)):
        raise UserError(f"{where} has to name two different sentences at least, none empty")
    return {sentence: [sentence] for sentence in sentences}


def _pictures(folder: Path) -> Iterator[Path]:
    """Picture files below a folder; hidden files and folders are passed over."""
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            path = Path(parent, name)
            if path.suffix.lower() in IMAGE_SUFFIXES and not name.startswith("."):
                yield path


class _Table:
    """The CSV, written row by row under a partial name."""

    def __init__(self, path: Path, classes: list[str]) -> None:
        self._path, self._partial = path, path.with_name(path.name + _PARTIAL)
        self._classes = classes

    def __enter__(self) -> _Table:
        self._stream: TextIO = _opened(self._partial)
        self._writer = csv.writer(self._stream)
        columns = [f"{kind}:{name}" for kind in ("probability", "cosine") for name in self._classes]
        self._writer.writerow(["file", *columns])
        return self

    def write(self, names: Sequence[str], valid: np.ndarray, scores: Any) -> None:
        rows = iter(np.concatenate([scores.probability, scores.cosine], axis=1))
        for name, readable in zip(names, valid, strict=True):
            cells = [f"{x:.7g}" for x in next(rows)] if readable else [""] * 2 * len(self._classes)
            self._writer.writerow([name, *cells])

    def __exit__(self, kind: object, *_: object) -> None:
        self._stream.close()
        if kind is None:
            self._partial.replace(self._path)


class _Parquet:
    """Columns `file` and `embedding` (fixed-size list of float32), a row group a batch."""

    def __init__(self, path: Path, dim: int, checkpoint: str) -> None:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError:
            raise UserError(
                "--embeddings needs pyarrow: pip install 'endoclip_jax[parquet]'"
            ) from None
        self._arrow, self._path = pyarrow, path
        self._partial = path.with_name(path.name + _PARTIAL)
        self._schema = pyarrow.schema(
            [("file", pyarrow.string()), ("embedding", pyarrow.list_(pyarrow.float32(), dim))],
            metadata={"checkpoint": checkpoint},
        )

    def __enter__(self) -> _Parquet:
        _opened(self._partial).close()
        self._writer = self._arrow.parquet.ParquetWriter(self._partial, self._schema)
        return self

    def write(self, names: Sequence[str], embeddings: np.ndarray) -> None:
        flat = self._arrow.array(np.ascontiguousarray(embeddings, np.float32).reshape(-1))
        vectors = self._arrow.FixedSizeListArray.from_arrays(flat, embeddings.shape[1])
        columns = [self._arrow.array(list(names), self._arrow.string()), vectors]
        self._writer.write_table(self._arrow.Table.from_arrays(columns, schema=self._schema))

    def __exit__(self, kind: object, *_: object) -> None:
        self._writer.close()
        if kind is None:
            self._partial.replace(self._path)


def _opened(path: Path) -> TextIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("w", newline="", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror})") from None
