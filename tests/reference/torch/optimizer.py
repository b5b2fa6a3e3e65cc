"""AdamW as the method states it: which parameters decay, clipping, schedule, logit scale."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

BETAS = (0.9, 0.98)
EPS = 1e-6
WEIGHT_DECAY = 0.2
MAX_NORM = 1.0
LARGEST_LOGIT_SCALE = math.log(100.0)


def decays(name: str, parameter: Tensor) -> bool:
    """Kernels only: not embeddings (token, position, class), norms, biases or the logit scale."""
    return parameter.ndim >= 2 and not name.endswith(
        ("token_embedding.weight", "position_embedding.weight")
    )


def learning_rate(step: int, *, peak: float, warmup_steps: int, total_steps: int) -> float:
    """Of update `step` (from 0): linear from 0 to `peak`, then half a cosine back to 0."""
    if step < warmup_steps:
        return peak * step / warmup_steps
    progress = (step - warmup_steps) / (total_steps - warmup_steps)
    return peak * (1 + math.cos(math.pi * progress)) / 2


def global_norm(gradients: Mapping[str, Tensor]) -> Tensor:
    """The length of all gradients as one vector."""
    return torch.sqrt(sum((g.double() ** 2).sum() for g in gradients.values())).float()


class Trainer:
    """Updates the parameters of `modules` from one loss after another."""

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        *,
        peak: float,
        warmup_steps: int,
        total_steps: int,
        weight_decay: float = WEIGHT_DECAY,
    ) -> None:
        self.parameters = {
            f"{prefix}.{name}": parameter
            for prefix, module in modules.items()
            for name, parameter in module.named_parameters()
        }
        self.schedule = {"peak": peak, "warmup_steps": warmup_steps, "total_steps": total_steps}
        self.step = 0
        groups = [
            {
                "params": [p for n, p in self.parameters.items() if decays(n, p) == decay],
                "weight_decay": weight_decay if decay else 0.0,
            }
            for decay in (True, False)
        ]
        self.adam = torch.optim.AdamW(groups, lr=peak, betas=BETAS, eps=EPS)

    def gradients(self, loss: Tensor) -> dict[str, Tensor]:
        """Of every parameter, before clipping."""
        return dict(
            zip(
                self.parameters,
                torch.autograd.grad(loss, list(self.parameters.values()), materialize_grads=True),
                strict=True,
            )
        )

    def update(self, gradients: Mapping[str, Tensor]) -> float:
        """One clipped AdamW update, then the logit scale back into [0, log 100]; its rate."""
        shrink = torch.clamp(MAX_NORM / global_norm(gradients), max=1.0)
        for name, parameter in self.parameters.items():
            parameter.grad = gradients[name] * shrink
        rate = learning_rate(self.step, **self.schedule)
        for group in self.adam.param_groups:
            group["lr"] = rate
        self.adam.step()
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                if name.endswith("logit_scale"):
                    parameter.clamp_(0.0, LARGEST_LOGIT_SCALE)
        self.step += 1
        return rate
