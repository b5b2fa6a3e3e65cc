"""Model and batches of the parity suite: the embedded cohort through the stages' own loaders."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from endoclip_jax.benchmarks.cases import Case
from endoclip_jax.data.prompts import SENTENCES
from endoclip_jax.data.selection import Selection, keep_top
from endoclip_jax.data.tokenizer import load_tokenizer
from endoclip_jax.models.clip import (
    CLIP,
    VIT_B32,
    CLIPConfig,
    TextConfig,
    VisionConfig,
    initial_params,
)
from endoclip_jax.models.cross_attention import CrossAttention
from endoclip_jax.shards.index import Index
from endoclip_jax.shards.prepare import prepare
from endoclip_jax.stages import cases
from endoclip_jax.stages.attunement import attunement
from endoclip_jax.stages.cleansing import cleansing
from endoclip_jax.stages.stage import PreparedStage, Setting
from endoclip_jax.stages.unification import unification
from endoclip_jax.synthetic.cohort import write_cohort

_CROSS_NOISE = 0.05  # the identity alone would hide a transposed or exchanged kernel
_FRAMES = 6  # of each examination, stored at this many pixels
_STORED_SIDE = 64
_KEPT = 0.5  # share of a positive patient's frames that stages 2 and 3 draw from


@dataclass(frozen=True)
class Size:
    """Of the model, the batches and the cohort they come from.

    Attributes:
      batches: patients in a batch of stage 1, 2 and 3.
      examinations: of the training split.
    """

    model: CLIPConfig
    batches: tuple[int, int, int]
    max_images: int
    max_texts: int
    learning_rate: float
    examinations: int


SIZES = {
    "tiny": Size(
        CLIPConfig(
            vision=VisionConfig(image_size=32, patch_size=8, width=64, layers=2, heads=4),
            text=TextConfig(width=24, layers=2, heads=3),
            embed_dim=32,
        ),
        batches=(16, 12, 8),
        max_images=4,
        max_texts=3,
        learning_rate=5e-4,
        examinations=80,
    ),
    "vit-b32": Size(
        VIT_B32,
        batches=(8, 8, 4),
        max_images=2,
        max_texts=2,
        learning_rate=5e-5,
        examinations=80,
    ),
}


@dataclass(frozen=True)
class Material:
    """Prepared patients with frames chosen at random, and a model without training."""

    setting: Setting
    selection: Selection
    size: Size

    @classmethod
    def of(cls, index: Index, size: Size, *, seed: int) -> Material:
        """Over prepared shards; of each positive patient half of the frames are kept, at random."""
        frames = np.concatenate(cases.all_frames(index, cases.positives(index, index.rows())))
        records = np.asarray(index.frames["record"][frames], np.int64)
        scores = np.random.default_rng(seed).normal(size=len(frames)).astype(np.float32)
        kept = keep_top(scores, records, _KEPT)
        selection = Selection.create(index, frames=frames, scores=scores, kept=kept, meta={})
        return cls(Setting(index, CLIP(size.model), load_tokenizer(), seed), selection, size)

    @property
    def sentences(self) -> np.ndarray:
        """Token ids of stage 1's two sentences, `[2, n]`."""
        return self.setting.tokenizer(list(SENTENCES))[0]

    def parameters(self, case: Case) -> dict[str, Any]:
        """CLIP's initial weights; cross-attention at the identity with some noise."""
        parameters: dict[str, Any] = {"clip": initial_params(self.setting.model, self.setting.seed)}
        if case.stage == "stage3" and case.attention != "none":
            draw = np.random.default_rng(self.setting.seed)
            dim = self.size.model.embed_dim

            def kernel() -> np.ndarray:
                return (np.eye(dim) + _CROSS_NOISE * draw.normal(size=(dim, dim))).astype(
                    np.float32
                )

            parameters["cross"] = {
                direction: {role: {"kernel": kernel()} for role in ("query", "key", "value")}
                for direction in ("image_to_text", "text_to_image")
            }
        return parameters

    def stage(self, case: Case) -> PreparedStage:
        """The stage that `case` trains, as the pipeline builds it."""
        first, second, third = self.size.batches
        if case.stage == "stage1":
            return cleansing(
                self.setting, round_number=1, selection=None, global_batch=first,
                temperature="learned", rho=_KEPT,
            )  # fmt: skip
        onehot = case.target_norm == "onehot"
        shared: dict[str, Any] = {
            "selection": self.selection,
            "target": "onehot" if onehot else "morphology",
            "target_norm": "l1" if onehot else case.target_norm,
            "temperature": "learned",
        }
        if case.stage == "stage2":
            return attunement(self.setting, global_batch=second, **shared)
        attention = CrossAttention(
            self.size.model.embed_dim, case.attention, case.qk_norm, case.residual
        )
        return unification(
            self.setting, attention, global_batch=third, max_images=self.size.max_images,
            max_texts=self.size.max_texts, include_single=False, **shared,
        )  # fmt: skip


def material(folder: Path, size: Size, *, seed: int) -> Material:
    """Draws and prepares the embedded cohort of `size` in `folder`."""
    write_cohort(
        folder / "cohort",
        seed=seed,
        examinations={"train": size.examinations},
        frames_per_case=_FRAMES,
        polyps=0,
        processes=1,  # seconds of work: less than starting more of them
    )
    prepare(
        folder / "cohort" / "records",
        folder / "shards",
        long_side=_STORED_SIDE,
        workers=1,
        salt=hashlib.sha256(f"parity {seed}".encode()).digest(),
        progress=False,
    )
    return Material.of(Index.open(folder / "shards"), size, seed=seed)
