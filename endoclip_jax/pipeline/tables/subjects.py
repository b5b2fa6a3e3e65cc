"""What a table's rows evaluate: trained stages, and models that nobody here trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from endoclip_jax.convert.resnet import LoadedResNet, random_resnet, read_resnet
from endoclip_jax.evaluation.subjects import AnySubject, ImageSubject, Subject
from endoclip_jax.pipeline.labelled import subject_of
from endoclip_jax.pipeline.run import Run, initial_params

WITHOUT_TEXT = ("dino", "sscd")
"""Stages that train no text tower: theirs is a start's, and no score of it is shown."""


class Absent(Exception):
    """A model that cannot be had here; the message is the reason for its dashes."""


def _pretrained(run: Run, name: str) -> AnySubject:
    if not run.config.init.clip:
        raise Absent("no pre-trained CLIP weights were given (--config.init.clip=DIR)")
    return Subject(name, run.setting.model, initial_params(run)["clip"])


def _random_resnet(run: Run, name: str) -> AnySubject:
    return _resnet(run, name, random_resnet(run.config.seed))


def _imagenet_resnet(run: Run, name: str) -> AnySubject:
    if not run.config.init.resnet:
        raise Absent("no ImageNet weights of a ResNet-50 were given (--config.init.resnet=DIR)")
    return _resnet(run, name, read_resnet(run.config.init.resnet))


def _resnet(run: Run, name: str, loaded: LoadedResNet) -> AnySubject:
    size = run.config.eval.resnet_size
    return ImageSubject(name, loaded.model, loaded.variables, size, normalise=loaded.normalise)


UNTRAINED: dict[str, Callable[[Run, str], AnySubject]] = {
    "pretrained_clip": _pretrained,
    "random_resnet": _random_resnet,
    "imagenet_resnet": _imagenet_resnet,
}
"""Models that no stage makes, by the name a row evaluates them under."""

SEEDLESS = {"pretrained_clip", "imagenet_resnet"}
"""Those of them that are the same for every seed."""


def subject(run: Run, source: str, name: str, params: Mapping[str, Any] | None) -> AnySubject:
    """The model behind a source, called `name` in the results.

    Args:
      params: of the stage that made it, where one did.

    Raises:
      Absent: for one whose ingredients are not there.
    """
    if params is None:
        return UNTRAINED[source](run, name)
    model = run.setting.model
    if source in WITHOUT_TEXT:
        variables = {"params": params["clip"]}
        return ImageSubject(name, model, variables, run.setting.image_size, "encode_image")
    return subject_of(name, model, params, run.config.stage3.to_dict())
