"""The baseline DINO: self-distillation without labels on the same frames (arXiv 2104.14294).

The student learns to say of every crop of a frame what the teacher says of the two large ones. The
teacher is the student's moving average and is what is handed on, as in the paper, under `clip`:
the tower every reader of a checkpoint knows. Text tower and temperature stay as they were.

    params    clip      vision: the teacher's tower; text, logit_scale: untouched     moving average
              teacher   head, centre, updates                                         moving average
              student   vision, head                                                  optimizer

Kept from the paper: multi-crop, centring, sharpening with a warm-up of the teacher's temperature,
momentum from a cosine to 1, prototypes that wait before they move. Taken from this project, the
same for every row of Table 1: the tower (to its projection, on which the head sits), AdamW with
its clipping, schedule and constant decay, no stochastic depth.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from endoclip_jax.data.crops import Crops, Recipe
from endoclip_jax.data.transforms import normalize
from endoclip_jax.errors import UserError
from endoclip_jax.models.positions import image_features
from endoclip_jax.models.prototypes import PrototypeHead
from endoclip_jax.objectives.distillation import (
    distillation_loss,
    momentum_at,
    moved_towards,
    teacher_temperature_at,
)
from endoclip_jax.stages.self_supervised import loaders_of_crops
from endoclip_jax.stages.stage import Batch, PreparedStage, Setting, Terms

FROZEN = (("clip",), ("teacher",))  # for the optimizer: `after_update` moves them

_JITTER = (0.4, 0.4, 0.2, 0.1)
_RADII = (0.1, 2.0)
_GLOBAL_AREA, _LOCAL_AREA = (0.4, 1.0), (0.05, 0.4)
GLOBAL = (
    Recipe(_GLOBAL_AREA, _JITTER, blur=1.0, radii=_RADII),
    Recipe(_GLOBAL_AREA, _JITTER, blur=0.1, radii=_RADII, solarise=0.2),
)
LOCAL = Recipe(_LOCAL_AREA, _JITTER, blur=0.5, radii=_RADII)

_STUDENT_TEMPERATURE = 0.1
_CENTRE_MOMENTUM = 0.9


def dino_params(clip_params: Mapping[str, Any], head: PrototypeHead, seed: int) -> dict[str, Any]:
    """Teacher and student alike, the centre at 0.

    Args:
      clip_params: the CLIP tree to start from.
    """
    width = clip_params["vision"]["projection"]["kernel"].shape[1]
    made = jax.jit(head.init)(jax.random.key(seed), jnp.zeros((1, width)))["params"]
    copy = partial(jax.tree.map, jnp.array)
    return {
        "clip": dict(clip_params),
        "teacher": {
            "head": made,
            "centre": jnp.zeros((head.prototypes,), jnp.float32),
            "updates": jnp.zeros((), jnp.float32),
        },
        "student": {"vision": copy(clip_params["vision"]), "head": copy(made)},
    }


def dino(
    setting: Setting,
    head: PrototypeHead,
    *,
    global_batch: int,
    epochs: int,
    steps: int | None,
    local_crops: int,
    local_size: int,
    momentum: float,
    temperature: float,
    temperature_start: float,
    temperature_epochs: int,
    frozen_epochs: int,
) -> PreparedStage:
    """Two large and `local_crops` small crops of one frame of each patient.

    Args:
      steps: how many updates there will be; None: those of `epochs`.
      local_size: side of the small crops in pixels; position embeddings are interpolated.
      momentum: the teacher's at the start; it ends at 1.
      temperature, temperature_start, temperature_epochs: the teacher's, and its warm-up.
      frozen_epochs: before the prototypes move.
    """
    model = setting.model
    vision = model.config.vision
    if local_size % vision.patch_size or not 0 < local_size <= vision.image_size:
        raise UserError(
            f"config.dino.local_size={local_size} is no multiple of the model's patches of "
            f"{vision.patch_size} pixels up to its {vision.image_size}: give one"
        )
    notes: list[str] = []
    crops = Crops(GLOBAL, LOCAL, local_crops, local_size)
    batches, validation = loaders_of_crops(setting, "dino", global_batch, crops, notes)
    per_epoch = batches.steps_per_epoch
    total = steps or epochs * per_epoch

    def complete(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: batch[name] for name in ("image", "local", "valid")}

    def outputs(params: Any, tower: Any, head_params: Any, crops: jax.Array) -> jax.Array:
        """`[b, v, k]` of crops `[b, v, s, s, 3]` by a vision tower and a head."""
        rows, views = crops.shape[:2]
        flat = normalize(crops.reshape(rows * views, *crops.shape[2:]))
        features = image_features(model, {**params["clip"], "vision": tower}, flat)
        cosines = head.apply({"params": head_params}, features)
        return jnp.asarray(cosines).reshape(rows, views, -1)

    def embed(params: Any, batch: Batch) -> dict[str, jax.Array]:
        teacher, student = params["teacher"], params["student"]
        waits = teacher["updates"] < frozen_epochs * per_epoch
        own_head = {**student["head"], "prototypes": _held(student["head"]["prototypes"], waits)}
        views = [outputs(params, student["vision"], own_head, batch["image"])]
        if local_crops:
            views.append(outputs(params, student["vision"], own_head, batch["local"]))
        seen = outputs(params, params["clip"]["vision"], teacher["head"], batch["image"])
        return {
            "student": jnp.concatenate(views, axis=1),
            "teacher": jax.lax.stop_gradient(seen),
        }

    def contrast(params: Any, features: Any, batch: Batch) -> tuple[jax.Array, Terms]:
        teacher = jax.lax.stop_gradient(params["teacher"])
        return distillation_loss(
            features["student"],
            features["teacher"],
            teacher["centre"],
            student_temperature=_STUDENT_TEMPERATURE,
            teacher_temperature=teacher_temperature_at(
                teacher["updates"], temperature_epochs * per_epoch, temperature_start, temperature
            ),
            valid=batch["valid"],
        )

    def after_update(params: Any, terms: Terms) -> Any:
        clip, teacher, student = params["clip"], params["teacher"], params["student"]
        kept = momentum_at(teacher["updates"], total, momentum)
        follow = partial(jax.tree.map, partial(moved_towards, momentum=kept))
        return {
            "clip": {**clip, "vision": follow(clip["vision"], student["vision"])},
            "teacher": {
                "head": follow(teacher["head"], student["head"]),
                "centre": moved_towards(teacher["centre"], terms["teacher_mean"], _CENTRE_MOMENTUM),
                "updates": teacher["updates"] + 1,
            },
            "student": student,
        }

    return PreparedStage(
        "dino",
        batches,
        validation,
        complete,
        embed,
        contrast,
        notes=notes,
        after_update=after_update,
    )


def _held(params: Any, waits: jax.Array) -> Any:
    """The parameters, without gradients while `waits`."""
    return jax.tree.map(lambda x: jnp.where(waits, jax.lax.stop_gradient(x), x), params)
