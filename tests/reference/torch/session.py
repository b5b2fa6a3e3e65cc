"""One stage's training in PyTorch: parameters in, then a loss and gradients for every batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from . import stages, towers
from .attention import CrossAttention
from .names import named
from .optimizer import Trainer

MEAN = (0.48145466, 0.4578275, 0.40821073)  # of CLIP's pixels in [0, 1], and their deviation
DEVIATION = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Options:
    """What is trained, and how; the names are those of the method's configuration.

    stage: `stage1`, `stage2` or `stage3`. target_norm: of `soft_rows`, or `onehot`; in stage 1
    `onehot` or `multi_positive`. The rest belongs to stage 3.
    """

    stage: str
    target_norm: str
    attention: str = "literal"
    qk_norm: bool = True
    residual: bool = False


class Step(NamedTuple):
    """What one batch gave, before the update."""

    loss: float
    excess: float
    gradients: dict[str, np.ndarray]


class Session:
    """Trains a `CLIPModel` of the sizes of `model` (the package's configuration as a dictionary).

    parameters: the package's tree; sentences: token ids [2, n] of stage 1, background first.
    """

    def __init__(
        self,
        options: Options,
        model: Mapping[str, Any],
        parameters: Mapping[str, Any],
        *,
        sentences: np.ndarray,
        peak: float,
        warmup_steps: int,
        total_steps: int,
    ) -> None:
        self.options = options
        self.sentences = torch.as_tensor(sentences).long()
        self.clip = towers.build(
            **{key: model["vision"][key] for key in ("image_size", "patch_size")},
            **{f"vision_{key}": model["vision"][key] for key in ("width", "layers", "heads")},
            **{key: model["text"][key] for key in ("vocab_size", "context_length")},
            **{f"text_{key}": model["text"][key] for key in ("width", "layers", "heads")},
            **{key: model[key] for key in ("embed_dim", "activation", "layer_norm_eps")},
        )
        modules: dict[str, torch.nn.Module] = {"clip": self.clip}
        if options.stage == "stage3":
            modules["cross"] = self.cross = CrossAttention(
                model["embed_dim"],
                options.attention,
                qk_norm=options.qk_norm,
                residual=options.residual,
            )
        self.trainer = Trainer(
            modules, peak=peak, warmup_steps=warmup_steps, total_steps=total_steps
        )
        self._load(named(parameters))

    def _load(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Every parameter from the array of its name; none left over on either side."""
        unmatched = set(arrays) ^ set(self.trainer.parameters)
        if unmatched:
            raise ValueError(f"parameters on one side only: {sorted(unmatched)}")
        with torch.no_grad():
            for name, parameter in self.trainer.parameters.items():
                given = torch.tensor(arrays[name])
                if given.shape != parameter.shape:
                    raise ValueError(f"{name} is {tuple(given.shape)}, not {parameter.shape}")
                parameter.copy_(given)

    def step(self, batch: Mapping[str, np.ndarray]) -> Step:
        """Loss and gradients of a batch of the package's loaders, then one update."""
        losses = self._losses({name: torch.tensor(array) for name, array in batch.items()})
        gradients = self.trainer.gradients(losses.loss)
        self.trainer.update(gradients)
        return Step(
            losses.loss.item(), losses.excess.item(), {n: g.numpy() for n, g in gradients.items()}
        )

    def parameters(self) -> dict[str, np.ndarray]:
        """A copy of every parameter by name."""
        return {
            name: parameter.detach().numpy().copy()
            for name, parameter in self.trainer.parameters.items()
        }

    def _losses(self, batch: Mapping[str, Tensor]) -> stages.Losses:
        pixels = (batch["image"] / 255 - torch.tensor(MEAN)) / torch.tensor(DEVIATION)
        norm = self.options.target_norm
        if self.options.stage == "stage1":
            return stages.cleansing(
                self.clip, pixels, self.sentences, batch["label"].long(), target=norm
            )
        ids = batch["ids"].long()
        if self.options.stage == "stage2":
            return stages.attunement(self.clip, pixels, ids, batch["a_v"], batch["a_t"], norm=norm)
        return stages.unification(
            self.clip,
            self.cross,
            pixels,
            batch["image_mask"],
            ids,
            batch["text_mask"],
            batch["union"],
            norm=norm,
        )
