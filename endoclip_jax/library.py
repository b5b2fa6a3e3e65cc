"""A trained model as a library: load it, embed images and texts, score a record.

import endoclip_jax

model = endoclip_jax.load("runs/quickstart/stage3")
embeddings = model.embed_images(["frame1.jpg", "frame2.jpg"])
scores = model.score(embeddings, {"polyp": ["..."], "background": ["..."]})
record = model.score_record(["frame1.jpg", "frame2.jpg"], report="...")
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from endoclip_jax.convert.fixture import check_installation, check_weights
from endoclip_jax.convert.source import read_weights
from endoclip_jax.convert.weights import Weights
from endoclip_jax.data.labelled import field_image, file_batches
from endoclip_jax.data.prompts import BACKGROUND, POLYPS
from endoclip_jax.data.tokenizer import load_tokenizer
from endoclip_jax.errors import UserError
from endoclip_jax.evaluation.zero_shot import class_feature
from endoclip_jax.models.clip import CLIP
from endoclip_jax.models.cross_attention import CrossAttention
from endoclip_jax.records.extraction import extract
from endoclip_jax.training.embedding import embed_frames, embed_texts

Picture = str | Path | np.ndarray

log = logging.getLogger(__name__)
_BATCH = 64


@dataclasses.dataclass(frozen=True)
class Scores:
    """Zero-shot scores of frames for named classes.

    Attributes:
      classes: their names, in the order of the columns.
      cosine: [n, classes], of the trained function (Endo-CLIP, Eq. 4 at K = L = 1) where stage 3
        trained one.
      probability: [n, classes], softmax of `exp(logit_scale) * cosine`; not calibrated.
    """

    classes: tuple[str, ...]
    cosine: Float[np.ndarray, "n c"]
    probability: Float[np.ndarray, "n c"]


@dataclasses.dataclass(frozen=True)
class RecordScore:
    """One examination: what each frame shows, and how frames and report fit each other.

    Attributes:
      polyp: [k], probability of "polyps" against "normal background" for each frame.
      descriptions: the English descriptions extracted from the report, one a finding.
      cosine: [k, l], frames against descriptions.
      match: the patient's similarity in [-1, 1] as stage 3 computes it (cosine of mean frames and
        mean descriptions for a model without cross-attention); NaN without descriptions.
    """

    polyp: Float[np.ndarray, " k"]
    descriptions: tuple[str, ...]
    cosine: Float[np.ndarray, "k l"]
    match: float


class Model:
    """A loaded model; everything in and out is NumPy, float32, embeddings of unit length."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.config = weights.config
        self._clip = CLIP(weights.config)
        self._tokenizer = load_tokenizer()

    def embed_images(self, images: Sequence[Picture]) -> Float[np.ndarray, "n d"]:
        """Embeddings of image files, or of uint8 RGB arrays [h, w, 3].

        Each is cut to its field of view and resized whole, as in training.

        Raises:
          UserError: naming a file that cannot be read.
        """
        size = self.config.vision.image_size
        if all(not isinstance(image, np.ndarray) for image in images):
            paths = [Path(image).expanduser() for image in images]  # type: ignore[arg-type]
            batches = file_batches(paths, _BATCH, size) if paths else None
            features, _ = embed_frames(self._clip, self.weights.params, batches or [])
            if batches is not None and batches.corrupt:
                raise UserError(batches.corrupt_names()[0])
            return features
        if not all(isinstance(image, np.ndarray) for image in images):
            raise UserError("images are all files or all arrays, not both at once")
        squares = [field_image(np.asarray(image), size) for image in images]
        pieces = [squares[i : i + _BATCH] for i in range(0, len(squares), _BATCH)]
        return self.embed_batches(
            {
                "image": np.stack(piece),
                "frame": np.arange(len(piece)),
                "valid": np.ones(len(piece), bool),
            }
            for piece in pieces
        )

    def embed_batches(self, batches: Any) -> Float[np.ndarray, "n d"]:
        """Embeddings of a loader's valid rows, in order."""
        return embed_frames(self._clip, self.weights.params, batches)[0]

    def embed_texts(self, texts: Sequence[str]) -> Float[np.ndarray, "n d"]:
        """Embeddings of texts; those over 77 tokens are cut, and a warning says how many."""
        if not texts:
            return np.zeros((0, self.config.embed_dim), np.float32)
        ids, truncated = self._tokenizer(texts)
        if truncated:
            log.warning(
                "%d of %d texts are longer than 77 tokens and were cut", truncated, len(ids)
            )
        return embed_texts(self._clip, self.weights.params, ids)

    def score(
        self,
        embeddings: Float[np.ndarray, "n d"],
        classes: Mapping[str, Sequence[str]],
        *,
        plain: bool = False,
    ) -> Scores:
        """Scores of image embeddings for classes, each given by one or several sentences.

        Args:
          plain: the towers' own cosine, also where stage 3 trained another function.
        """
        return self.score_features(embeddings, self.class_features(classes), plain=plain)

    def class_features(self, classes: Mapping[str, Sequence[str]]) -> dict[str, np.ndarray]:
        """One unit vector a class: the mean of its sentences' embeddings."""
        if not classes or not all(classes.values()):
            raise UserError("each class needs a sentence at least")
        return {name: class_feature(self.embed_texts(list(t))) for name, t in classes.items()}

    def score_features(
        self,
        embeddings: Float[np.ndarray, "n d"],
        features: Mapping[str, np.ndarray],
        *,
        plain: bool = False,
    ) -> Scores:
        """As `score`, for classes that are embedded already."""
        v, t = np.asarray(embeddings), np.stack(list(features.values()))
        if self.weights.cross is not None and self._attends and not plain:
            v = v @ self.weights.cross["text_to_image"]["value"]["kernel"]
            t = t @ self.weights.cross["image_to_text"]["value"]["kernel"]
        cosine = _unit(v) @ _unit(t).T
        logits = math.exp(float(self.weights.params["logit_scale"])) * cosine
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        return Scores(tuple(features), cosine, shares / shares.sum(axis=1, keepdims=True))

    def score_record(self, images: Sequence[Picture], report: str) -> RecordScore:
        """Scores of one examination's frames and its report (English or Chinese).

        The report is read by rules, offline; what is embedded are its findings' descriptions.
        """
        v = self.embed_images(images)
        sentences = {"polyp": [POLYPS], "background": [BACKGROUND]}
        polyp = self.score(v, sentences, plain=True).probability[:, 0]
        descriptions = tuple(item["description"] for item in extract(report)["polyps"])
        t = self.embed_texts(descriptions)
        match = self._match(v, t) if len(v) and len(t) else math.nan
        return RecordScore(polyp, descriptions, v @ t.T, match)

    @property
    def _attends(self) -> bool:
        return self.weights.attention.get("attention", "none") != "none"

    def _match(self, v: np.ndarray, t: np.ndarray) -> float:
        settings = self.weights.attention or {"attention": "none"}
        module = CrossAttention(
            self.config.embed_dim,
            mode=settings["attention"],
            qk_norm=settings.get("qk_norm", True),
            residual=settings.get("residual", False),
        )
        similarity = module.apply(
            {"params": self.weights.cross or {}},
            jnp.asarray(v)[None],
            jnp.ones((1, len(v)), bool),
            jnp.asarray(t)[None],
            jnp.ones((1, len(t)), bool),
            method="similarity",
        )
        return float(np.asarray(similarity)[0, 0])


def load(source: str | Path) -> Model:
    """The model that `source` names: a stage's folder, a converted or foreign one, a hub name.

    Raises:
      UserError: for nothing there, for weights that do not fit, or for a preprocessing, activation
        or tokenizer other than those the weights were made with.
    """
    weights = read_weights(source)
    check_installation(weights.config.activation)
    check_weights(weights)
    for note in weights.notes:
        log.warning("%s", note)
    return Model(weights)


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
