"""What a table's rows evaluate: trained stages, and models that nobody here trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from endoclip_jax.evaluation.evaluate import Subject
from endoclip_jax.pipeline.run import Run, initial_params


class Absent(Exception):
    """A model that cannot be had here; the message is the reason for its dashes."""


def _pretrained(run: Run, name: str) -> Subject:
    if not run.config.init.clip:
        raise Absent("no pre-trained CLIP weights were given (--config.init.clip=DIR)")
    return Subject(name, run.setting.model, initial_params(run)["clip"])


UNTRAINED: dict[str, Callable[[Run, str], Subject]] = {"pretrained_clip": _pretrained}
"""Models that no stage makes, by the name a row evaluates them under."""

SEEDLESS = {"pretrained_clip"}
"""Those of them that are the same for every seed."""


def subject(run: Run, source: str, name: str, params: Mapping[str, Any] | None) -> Subject:
    """The model behind a source, called `name` in the results.

    Args:
      params: of the stage that made it, where one did.

    Raises:
      Absent: for one whose ingredients are not there.
    """
    return UNTRAINED[source](run, name) if params is None else _trained(run, name, params)


def _trained(run: Run, name: str, params: Mapping[str, Any]) -> Subject:
    """With `cross` parameters, a model is scored through its trained value kernels."""
    image = text = None
    if "cross" in params and run.config.stage3.attention != "none":
        image = params["cross"]["text_to_image"]["value"]["kernel"]
        text = params["cross"]["image_to_text"]["value"]["kernel"]
    return Subject(name, run.setting.model, params["clip"], image, text)
