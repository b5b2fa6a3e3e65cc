"""The PyTorch side of the step suite: `transformers.CLIPModel`, the same batch and mathematics.

Attention is SDPA, AdamW is fused, and everything the method's mathematics allows is given to it:

    published   CLIPModel's own forward; every text is encoded, at the context's full length
    plain       the same at our text length
    shortcuts   the two sentences of stage 1 encoded once, and the last block computed at the one
                token that is read; the modules and weights are CLIPModel's, the walk over its
                layers is written here
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor

from endoclip_jax.convert.configurations import to_huggingface
from endoclip_jax.convert.names import clip_rows, to_theirs
from endoclip_jax.data.transforms import CLIP_MEAN, CLIP_STD
from endoclip_jax.models.clip import CLIPConfig

FORMS = ("published", "plain", "shortcuts")
_MAX_LOGIT_SCALE = float(np.log(100.0))


@dataclass(frozen=True)
class Options:
    """How the peer computes.

    Attributes:
      form: of `FORMS`.
      compiled: whether `torch.compile` makes the loss and its gradient.
      device, dtype: `cpu` or `cuda`; `float32`, or `bfloat16` by autocast.
      rates: learning rate of each update, from 0 on.
    """

    form: str
    compiled: bool
    device: str
    dtype: str
    rates: Sequence[float]
    weight_decay: float


class Peer:
    """Trains a `CLIPModel` that starts from our parameters, on one batch that stays on the device.

    batch: as our loss takes it: `image` uint8, `valid`, and `label` (stage 1) or `ids`, `a_v`,
    `a_t` (stage 2). sentences: token ids of stage 1's two.
    """

    def __init__(
        self,
        stage: str,
        config: CLIPConfig,
        params: Mapping[str, Any],
        batch: Mapping[str, np.ndarray],
        sentences: np.ndarray,
        options: Options,
    ) -> None:
        self._options = options
        self._device = torch.device(options.device)
        self._model = _clip_model(config, params)
        self._model.to(torch.device(options.device))  # type: ignore[arg-type]
        self._model.train()
        full = options.form == "published"
        length = config.text.context_length if full else 0
        self._batch = {
            name: torch.tensor(_padded(value, length) if name == "ids" else value).to(self._device)
            for name, value in batch.items()
        }
        self._sentences = torch.tensor(_padded(sentences, length)).to(self._device)
        groups = [
            {
                "params": [p for n, p in self._model.named_parameters() if _decays(n, p) == decay],
                "weight_decay": options.weight_decay if decay else 0.0,
            }
            for decay in (True, False)
        ]
        self._adam = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98), eps=1e-6, fused=True)
        self._updates = 0
        loss = {"stage1": self._cleansing, "stage2": self._attunement}[stage]
        self._loss: Callable[[], Tensor] = torch.compile(loss) if options.compiled else loss

    def step(self) -> float:
        """One update: forward, backward, clipping, AdamW; the loss before it."""
        options = self._options
        for group in self._adam.param_groups:
            group["lr"] = options.rates[self._updates]
        self._adam.zero_grad(set_to_none=True)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=options.dtype == "bfloat16"):
            loss = self._loss()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        self._adam.step()
        with torch.no_grad():
            self._model.logit_scale.clamp_(0.0, _MAX_LOGIT_SCALE)
        self._updates += 1
        return float(loss.detach())  # waits for the device

    def _cleansing(self) -> Tensor:
        """Eq. 2 over the patients' sentences."""
        label, v = self._batch["label"].long(), self._images()
        if self._options.form == "shortcuts":
            return self._two_sentences(v, self._texts(self._sentences), label)
        logits = self._scaled(v, self._texts(self._sentences[label]))
        diagonal = torch.arange(len(v), device=v.device)
        return (F.cross_entropy(logits, diagonal) + F.cross_entropy(logits.T, diagonal)) / 2

    def _two_sentences(self, v: Tensor, t: Tensor, label: Tensor) -> Tensor:
        """The same from `[B, 2]` logits: each sentence stands in the matrix as often as it has
        patients."""
        logits = self._scaled(v, t)
        member = F.one_hot(label, 2).float()
        counts = member.sum(dim=0)
        rows = torch.logsumexp(logits + torch.log(counts), dim=1).mean()
        share = torch.where(counts > 0, counts, 0.0) / len(label)
        columns = (share * torch.logsumexp(logits, dim=0)).sum()
        return (rows + columns) / 2 - (member * logits).sum(dim=1).mean()

    def _attunement(self) -> Tensor:
        """Eq. 3: targets from the cosine of attributes, diagonal at least 1, rows summing to 1."""
        logits = self._scaled(self._images(), self._texts(self._batch["ids"].long()))
        with self._exactly():
            a_v, a_t = (F.normalize(self._batch[name], dim=1) for name in ("a_v", "a_t"))
            similarity = a_v @ a_t.T
            return (_soft(logits, similarity) + _soft(logits.T, similarity.T)) / 2

    def _scaled(self, v: Tensor, t: Tensor) -> Tensor:
        with self._exactly():
            v, t = F.normalize(v.float(), dim=1), F.normalize(t.float(), dim=1)
            return self._model.logit_scale.exp() * v @ t.T

    def _exactly(self) -> torch.autocast:
        """Similarities and losses are computed in float32, as ours are."""
        return torch.autocast(self._device.type, enabled=False)

    def _images(self) -> Tensor:
        model, form = self._model, self._options.form
        mean = torch.tensor(CLIP_MEAN, device=self._device) * 255
        deviation = torch.tensor(CLIP_STD, device=self._device) * 255
        pixels = ((self._batch["image"] - mean) / deviation).permute(0, 3, 1, 2)
        if form != "shortcuts":
            pooled = model.vision_model(pixel_values=pixels).pooler_output
            return model.visual_projection(pooled)
        tower = model.vision_model
        x = tower.pre_layrnorm(tower.embeddings(pixels))
        x = _encoded(tower.encoder.layers, x, torch.zeros_like(x[:, 0, 0]).long(), causal=False)
        return model.visual_projection(tower.post_layernorm(x))

    def _texts(self, ids: Tensor) -> Tensor:
        model, form = self._model, self._options.form
        if form != "shortcuts":
            return model.text_projection(model.text_model(input_ids=ids).pooler_output)
        tower = model.text_model
        eot = cast(transformers.CLIPTextConfig, model.config.text_config).eos_token_id
        end = torch.eq(ids, cast(int, eot)).int().argmax(dim=1)
        x = _encoded(tower.encoder.layers, tower.embeddings(input_ids=ids), end, causal=True)
        return model.text_projection(tower.final_layer_norm(x))


def _encoded(layers: Any, x: Tensor, place: Tensor, *, causal: bool) -> Tensor:
    """All layers over tokens [B, n, D], the last only at `place` [B]: [B, D]."""
    *body, last = layers
    for layer in body:
        x = x + _attended(layer, layer.layer_norm1(x), causal=causal)
        x = x + layer.mlp(layer.layer_norm2(x))
    index = place[:, None, None].expand(-1, 1, x.shape[-1])
    mask = None
    if causal:
        token = torch.arange(x.shape[1], device=x.device)
        mask = (token[None, :] <= place[:, None])[:, None, None, :]
    context = last.layer_norm1(x)
    x = x.gather(1, index) + _attended(last, context, context.gather(1, index), mask)
    return (x + last.mlp(last.layer_norm2(x)))[:, 0]


def _attended(
    layer: Any,
    context: Tensor,
    query: Tensor | None = None,
    mask: Tensor | None = None,
    causal: bool = False,
) -> Tensor:
    attention = layer.self_attn

    def heads(y: Tensor) -> Tensor:
        return y.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)

    q = heads(attention.q_proj(context if query is None else query))
    k, v = heads(attention.k_proj(context)), heads(attention.v_proj(context))
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
    return attention.out_proj(y.transpose(1, 2).flatten(2))


def _soft(logits: Tensor, similarity: Tensor) -> Tensor:
    target = torch.maximum(similarity, torch.eye(len(similarity), device=similarity.device))
    target = target / target.sum(dim=1, keepdim=True)
    return F.cross_entropy(logits, target)


def _clip_model(config: CLIPConfig, params: Mapping[str, Any]) -> transformers.CLIPModel:
    clip = params["clip"]
    described = to_huggingface(config, float(clip["logit_scale"]))
    described = {key: value for key, value in described.items() if key != "dtype"}
    settings = transformers.CLIPConfig(**described, attn_implementation="sdpa")  # type: ignore[call-arg]
    model = transformers.CLIPModel(settings)
    tensors = to_theirs(clip, clip_rows(config), "huggingface")
    model.load_state_dict({name: torch.tensor(value) for name, value in tensors.items()})
    return model


def _decays(name: str, parameter: Tensor) -> bool:
    embedding = name.endswith(("token_embedding.weight", "position_embedding.weight"))
    return parameter.ndim >= 2 and not embedding


def _padded(ids: np.ndarray, length: int) -> np.ndarray:
    return np.pad(ids, ((0, 0), (0, max(0, length - ids.shape[1]))))
