"""Does cross-attention recognise pairs by what it should not see?

Inside a patient, literal attention (Eq. 4) makes the image vector of the patient's own texts and
the text vector of the patient's own images: two patients can be told apart by that alone, even
where images and texts have nothing to do with each other. The control is a match among patients
whose texts were exchanged: what the form itself contributes is what exceeds chance there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Bool, Float

from endoclip_jax.models.cross_attention import CrossAttention
from endoclip_jax.objectives.dense import similarity_loss

GROUP = 8
"""Patients among whom one has to be found: chance is one eighth."""


@dataclass(frozen=True)
class PatientFeatures:
    """Padded unit embeddings of `n` patients' images and texts with their masks."""

    v: Float[np.ndarray, "n k d"]
    v_mask: Bool[np.ndarray, "n k"]
    t: Float[np.ndarray, "n l d"]
    t_mask: Bool[np.ndarray, "n l"]

    def __len__(self) -> int:
        return len(self.v)

    def paired(self, images: np.ndarray, texts: np.ndarray) -> PatientFeatures:
        """The images of some patients, each with the texts of the patient beside it."""
        return PatientFeatures(
            self.v[images], self.v_mask[images], self.t[texts], self.t_mask[texts]
        )


def match_rate(similarity: Float[np.ndarray, "b b"]) -> float:
    """Share of rows and columns whose greatest entry is the pair's own; ties are not matches."""
    diagonal = np.diag(similarity)
    others = similarity - np.diag(np.full(len(similarity), np.inf))
    return float(
        0.5 * np.mean(diagonal > others.max(axis=1)) + 0.5 * np.mean(diagonal > others.max(axis=0))
    )


def pairing_rates(
    module: CrossAttention,
    params: Mapping[str, Any],
    patients: PatientFeatures,
    *,
    seed: int,
    groups: int = 100,
) -> dict[str, float]:
    """Match rates among groups of `GROUP` patients: `true` pairs, and `shuffled` ones.

    A shuffled group has the images of some patients and the texts of others, none of them in both.

    Raises:
      ValueError: for fewer than twice `GROUP` patients.
    """
    if len(patients) < 2 * GROUP:
        raise ValueError(f"{len(patients)} patients make no two groups of {GROUP}")
    rng = np.random.default_rng(seed)
    similar = _similarity(module)
    rates: dict[str, list[float]] = {"true": [], "shuffled": []}
    for _ in range(groups):
        drawn = rng.permutation(len(patients))[: 2 * GROUP]
        images, others = drawn[:GROUP], drawn[GROUP:]
        for name, texts in (("true", images), ("shuffled", others)):
            rates[name].append(match_rate(similar(params, patients.paired(images, texts))))
    return {name: float(np.mean(values)) for name, values in rates.items()}


def noise_rates(
    mode: str, *, dim: int, images: int, texts: int, seed: int, steps: int = 0, groups: int = 100
) -> dict[str, float]:
    """Match rates on features that are pure noise, drawn anew for each group.

    Returns:
      `initial`: of the module as it starts; `trained`: after `steps` updates on noise, which a
      form that reveals nothing cannot use.
    """
    module = CrossAttention(dim=dim, mode=mode)
    similar = _similarity(module)
    rng = np.random.default_rng(seed)

    def drawn() -> PatientFeatures:
        v, t = (_unit(rng.standard_normal((GROUP, n, dim))) for n in (images, texts))
        return PatientFeatures(v, np.ones((GROUP, images), bool), t, np.ones((GROUP, texts), bool))

    first = drawn()
    v_mask, t_mask = jnp.asarray(first.v_mask), jnp.asarray(first.t_mask)
    variables = module.init(
        jax.random.key(seed), jnp.asarray(first.v), v_mask, jnp.asarray(first.t), t_mask,
        method="similarity",
    )  # fmt: skip
    params = variables.get("params", {})
    rates = {"initial": np.mean([match_rate(similar(params, drawn())) for _ in range(groups)])}
    if steps and params:
        optimizer = optax.adam(1e-4)
        state = optimizer.init(params)

        @jax.jit
        def update(params: Any, state: Any, v: Any, t: Any) -> tuple[Any, Any]:
            def loss(params: Any) -> jax.Array:
                cosines: Any = module.apply(
                    {"params": params}, v, v_mask, t, t_mask, method="similarity"
                )
                return similarity_loss(cosines, jnp.log(1 / 0.07), target="onehot")[0]

            updates, state = optimizer.update(jax.grad(loss)(params), state)
            return optax.apply_updates(params, updates), state

        for _ in range(steps):
            batch = drawn()
            params, state = update(params, state, batch.v, batch.t)
    rates["trained"] = np.mean([match_rate(similar(params, drawn())) for _ in range(groups)])
    return {name: float(rate) for name, rate in rates.items()}


def _similarity(module: CrossAttention) -> Any:
    @jax.jit
    def cosines(params: Any, v: Any, v_mask: Any, t: Any, t_mask: Any) -> Any:
        return module.apply({"params": params}, v, v_mask, t, t_mask, method="similarity")

    return lambda params, p: np.asarray(cosines(params, p.v, p.v_mask, p.t, p.t_mask))


def _unit(x: np.ndarray) -> np.ndarray:
    return np.asarray(x / np.linalg.norm(x, axis=-1, keepdims=True), np.float32)
