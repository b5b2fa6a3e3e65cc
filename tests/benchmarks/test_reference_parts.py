"""The parts of the method, JAX against PyTorch, for every option; values and gradients."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from reference.torch import attention as torch_attention
from reference.torch import losses as torch_losses
from reference.torch import optimizer as torch_optimizer
from reference.torch import targets as torch_targets

from endoclip_jax.benchmarks.cases import TARGETS
from endoclip_jax.models.cross_attention import CrossAttention
from endoclip_jax.objectives.dense import contrastive_loss, two_sentence_loss
from endoclip_jax.objectives.soft_targets import parse_target_norm
from endoclip_jax.training.optimizer import Schedule, make_optimizer, project_logit_scale

B, D, K, L, A = 5, 6, 3, 2, 9
ROLES = ("query", "key", "value")
DIRECTIONS = ("image_to_text", "text_to_image")


def unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def attributes(rng: np.random.Generator) -> np.ndarray:
    bits = (rng.random((B, A)) < 0.4).astype(np.float32)
    bits[1] = 0  # a patient of whom nothing is recorded
    return bits


def leaf(x: np.ndarray) -> torch.Tensor:
    return torch.tensor(x, requires_grad=True)


@pytest.mark.parametrize("norm", TARGETS)
def test_losses_of_every_target(norm):
    rng = np.random.default_rng(3)
    v, t = unit(rng.normal(size=(B, D))), unit(rng.normal(size=(B, D)))
    a_v, a_t = attributes(rng), attributes(rng)
    scale = np.float32(2.3)

    def ours(v, t, scale):
        target = {"target": "onehot"}
        if norm != "onehot":
            target = {"target": "morphology", "target_norm": parse_target_norm(norm)}
        return contrastive_loss(v, t, scale, jnp.asarray(a_v), jnp.asarray(a_t), **target)

    (loss, terms), gradients = jax.value_and_grad(ours, argnums=(0, 1, 2), has_aux=True)(
        jnp.asarray(v), jnp.asarray(t), jnp.asarray(scale)
    )
    leaves = [leaf(v), leaf(t), leaf(scale)]
    logits = leaves[2].exp() * leaves[0] @ leaves[1].T
    if norm == "onehot":
        rows = columns = torch_targets.one_hot(B)
    else:
        similarity = torch_targets.morphological_similarity(torch.tensor(a_v), torch.tensor(a_t))
        rows = torch_targets.soft_rows(similarity, norm)
        columns = torch_targets.soft_rows(similarity.T, norm)
    wanted = torch_losses.symmetric_loss(logits, rows, columns)
    entropy = (torch_targets.entropy(rows) + torch_targets.entropy(columns)) / 2
    np.testing.assert_allclose(loss, wanted.item(), rtol=2e-6)
    np.testing.assert_allclose(terms["entropy"], entropy.item(), rtol=2e-6, atol=1e-7)
    for given, expected in zip(gradients, torch.autograd.grad(wanted, leaves), strict=True):
        np.testing.assert_allclose(given, expected.numpy(), rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("target", ["onehot", "multi_positive"])
@pytest.mark.parametrize("label", [[0, 1, 1, 0, 1], [1, 1, 1, 1, 1]])
def test_the_loss_of_two_sentences(target, label):
    rng = np.random.default_rng(4)
    v, sentences = unit(rng.normal(size=(B, D))), unit(rng.normal(size=(2, D)))
    label = np.array(label)
    (loss, terms), gradients = jax.value_and_grad(two_sentence_loss, (0, 1, 3), has_aux=True)(
        jnp.asarray(v), jnp.asarray(sentences), jnp.asarray(label), jnp.float32(2.3)
    )
    leaves = [leaf(v), leaf(sentences), leaf(np.float32(2.3))]
    everyone = torch_targets.multi_positive(torch.tensor(label))
    wanted = torch_losses.symmetric_loss(
        leaves[2].exp() * leaves[0] @ leaves[1][torch.tensor(label)].T,
        *(2 * [everyone if target == "multi_positive" else torch_targets.one_hot(B)]),
    )
    np.testing.assert_allclose(loss, wanted.item(), rtol=2e-6)
    floor = torch_targets.entropy(everyone).item()
    np.testing.assert_allclose(terms["excess"], wanted.item() - floor, rtol=1e-4, atol=1e-6)
    for given, expected in zip(gradients, torch.autograd.grad(wanted, leaves), strict=True):
        np.testing.assert_allclose(given, expected.numpy(), rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("qk_norm", [True, False])
@pytest.mark.parametrize("mode", ["literal", "pairwise", "none"])
def test_every_form_of_attention(mode, qk_norm, residual):
    rng = np.random.default_rng(5)
    v, t = unit(rng.normal(size=(B, K, D))), unit(rng.normal(size=(B, L, D)))
    v_mask, t_mask = np.ones((B, K), bool), np.ones((B, L), bool)
    v_mask[0, 1:], v_mask[3, 2], t_mask[0, 1], t_mask[2, 1] = False, False, False, False
    weights = rng.normal(size=(B, B)).astype(np.float32)
    kernels = {
        direction: {role: rng.normal(size=(D, D)).astype(np.float32) for role in ROLES}
        for direction in (DIRECTIONS if mode != "none" else ())
    }
    module = CrossAttention(D, mode, qk_norm, residual)

    def ours(params, v, t):
        variables = {"params": jax.tree.map(lambda kernel: {"kernel": kernel}, params)}
        masks = jnp.asarray(v_mask), jnp.asarray(t_mask)
        cosines = module.apply(variables, v, masks[0], t, masks[1], method="similarity")
        return jnp.sum(cosines * weights), cosines

    (_, cosines), gradients = jax.jit(jax.value_and_grad(ours, argnums=(0, 1, 2), has_aux=True))(
        kernels, v, t
    )
    theirs = torch_attention.CrossAttention(D, mode, qk_norm=qk_norm, residual=residual)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            direction, role = name.split(".")
            parameter.copy_(torch.tensor(kernels[direction][role].T))
    leaves = [leaf(v), leaf(t)]
    wanted = theirs(leaves[0], torch.tensor(v_mask), leaves[1], torch.tensor(t_mask))
    np.testing.assert_allclose(cosines, wanted.detach().numpy(), rtol=1e-4, atol=2e-6)
    (wanted * torch.tensor(weights)).sum().backward()
    for given, expected in zip(gradients[1:], leaves, strict=True):
        np.testing.assert_allclose(given, expected.grad.numpy(), rtol=2e-4, atol=1e-5)
    for name, parameter in theirs.named_parameters():
        direction, role = name.split(".")
        given = gradients[0][direction][role].T
        np.testing.assert_allclose(given, parameter.grad.numpy(), rtol=2e-4, atol=1e-5)


class Small(torch.nn.Module):
    """A kernel, a bias, an embedding and a logit scale at CLIP's upper bound."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = torch.nn.Linear(3, 2)
        self.token_embedding = torch.nn.Embedding(4, 3)
        self.logit_scale = torch.nn.Parameter(torch.tensor(math.log(100.0)))


def test_updates_clipping_decay_and_projection():
    """Gradients of every size on either side of the clip, and a scale pushed over its bounds."""
    steps, warmup, peak = 30, 5, 0.3
    module = Small()
    trainer = torch_optimizer.Trainer(
        {"clip": module}, peak=peak, warmup_steps=warmup, total_steps=steps
    )
    params = {
        "clip": {
            "fc": {
                "kernel": jnp.asarray(module.fc.weight.detach().numpy().T.copy()),
                "bias": jnp.asarray(module.fc.bias.detach().numpy().copy()),
            },
            "token_embedding": jnp.asarray(module.token_embedding.weight.detach().numpy().copy()),
            "logit_scale": jnp.asarray(module.logit_scale.item(), jnp.float32),
        }
    }
    optimizer = make_optimizer(Schedule(steps, warmup, peak), torch_optimizer.WEIGHT_DECAY)
    state = optimizer.init(params)

    @jax.jit
    def update(params, state, gradients):
        updates, state = optimizer.update(gradients, state, params)
        return project_logit_scale(optax.apply_updates(params, updates)), state

    rng = np.random.default_rng(6)
    scales = []
    for step in range(steps):
        size = 10.0 ** rng.uniform(-3, 1)
        drawn = {
            name: torch.tensor(size * rng.normal(size=tuple(p.shape)), dtype=torch.float32)
            for name, p in trainer.parameters.items()
        }
        drawn["clip.logit_scale"] = torch.tensor(-1.0 if step < 8 else 1.0) * size
        gradients = {
            "clip": {
                "fc": {
                    "kernel": jnp.asarray(drawn["clip.fc.weight"].numpy().T),
                    "bias": jnp.asarray(drawn["clip.fc.bias"].numpy()),
                },
                "token_embedding": jnp.asarray(drawn["clip.token_embedding.weight"].numpy()),
                "logit_scale": jnp.asarray(drawn["clip.logit_scale"].numpy()),
            }
        }
        trainer.update(drawn)
        params, state = update(params, state, gradients)
        ours = params["clip"]
        for given, wanted in (
            (ours["fc"]["kernel"].T, module.fc.weight),
            (ours["fc"]["bias"], module.fc.bias),
            (ours["token_embedding"], module.token_embedding.weight),
            (ours["logit_scale"], module.logit_scale),
        ):
            np.testing.assert_allclose(given, wanted.detach().numpy(), rtol=1e-4, atol=1e-5)
        scales.append(float(ours["logit_scale"]))
    assert scales[3] == pytest.approx(math.log(100.0)) and min(scales) < math.log(100.0)
