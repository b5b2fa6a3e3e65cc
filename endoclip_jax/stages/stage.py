"""What every stage is given, and the loaders they share.

A stage brings to the loop its batches, the texts and targets that belong to them, and a loss that
is a pure function of parameters and a batch. It knows no device, no checkpoint and no file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from endoclip_jax.data.augmentation import augmented
from endoclip_jax.data.loaders import Batches, frame_batches
from endoclip_jax.data.tokenizer import Tokenizer
from endoclip_jax.data.transforms import normalize
from endoclip_jax.errors import UserError
from endoclip_jax.models.clip import CLIP
from endoclip_jax.shards.index import Index


@dataclass(frozen=True)
class Setting:
    """The run a stage belongs to: data, model, seed, and this process's place in the job.

    Attributes:
      stop: whether to save and stop here; every process asks equally often.
      step, rest: tell the watchdog that a step begins, and that none runs.
      say: shows a line.
    """

    index: Index
    model: CLIP
    tokenizer: Tokenizer
    seed: int
    train_split: str = "train"
    validation_split: str = "validation"
    process_index: int = 0
    process_count: int = 1
    stop: Callable[[], bool] = lambda: False
    step: Callable[[str], None] = lambda _doing: None
    rest: Callable[[], None] = lambda: None
    say: Callable[[str], None] = lambda _text: None

    @property
    def image_size(self) -> int:
        return self.model.config.vision.image_size


Batch = Mapping[str, jax.Array]
Terms = dict[str, jax.Array]
Loss = Callable[[Any, Batch], tuple[jax.Array, Terms]]


def as_it_is(batch: Batch) -> Batch:
    """A batch whose rows do nothing to each other before the towers."""
    return batch


def pictures(batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Of a loader's batch what says what its frames look like."""
    return {name: batch[name] for name in ("image", "augmentation") if name in batch}


def seen(setting: Setting) -> Callable[[Batch], Batch]:
    """Turns training's `pictures` into `image` uint8 [..., s, s, 3], on the device."""
    return partial(augmented, size=setting.image_size)


def at_once(embed: Callable[[Any, Batch], Any], contrast: Callable[[Any, Any, Batch], Any]) -> Loss:
    """The loss of a batch whose features are all computed together."""
    return lambda params, batch: contrast(params, embed(params, batch), batch)


@dataclass
class PreparedStage:
    """A stage as the loop wants it, put together from parts by each stage's own function.

    Attributes:
      complete: adds texts, labels and attributes to a loader's batch and keeps only what the loss
        reads.
      on_device: what is done to a training batch once it is there, row by row, before the loss:
        augmentation.
      embed: (parameters, batch) to features, a row for each of the batch's that depends on it
        alone: what the towers do, and what can be done in parts.
      contrast: (parameters, features, batch) to the loss of the global batch and its terms.
      together: what rows do to each other before the towers see them, such as mixing images.
      after_update: moves parameters that are not the optimizer's (`training.state.make_update`).
      validate: further measures on held-out patients.
      notes: what was left out or capped, to be shown at the start.
      combine: makes the loss of `embed` and `contrast`; how, is the trainer's choice.
    """

    name: str
    batches: Batches
    validation: Batches | None
    complete: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]
    embed: Callable[[Any, Batch], Any]
    contrast: Callable[[Any, Any, Batch], tuple[jax.Array, Terms]]
    validate: Callable[[Any], dict[str, float]] = lambda _params: {}
    notes: list[str] = field(default_factory=list)
    on_device: Callable[[Batch], Batch] = as_it_is
    combine: Callable[[Any, Any], Loss] = at_once
    together: Callable[[Batch], Batch] = as_it_is
    after_update: Callable[[Any, Terms], Any] = lambda params, _terms: params

    @property
    def loss(self) -> Loss:
        """(parameters, batch) to the loss of the global batch and its terms."""
        of_features = self.combine(self.embed, self.contrast)
        return lambda params, batch: of_features(params, self.together(batch))


def encode_images(model: CLIP, params: Mapping[str, Any], image: jax.Array) -> jax.Array:
    """Unit embeddings `[b, d]` of uint8 images `[b, s, s, 3]`, normalised on the device."""
    features = model.apply({"params": params["clip"]}, normalize(image), method="encode_image")
    return cast(jax.Array, features)


def encode_texts(model: CLIP, params: Mapping[str, Any], ids: jax.Array | np.ndarray) -> jax.Array:
    """Unit embeddings `[b, d]` of token ids `[b, l]`."""
    features = model.apply({"params": params["clip"]}, jnp.asarray(ids), method="encode_text")
    return cast(jax.Array, features)


def split_loaders(
    setting: Setting,
    stage: str,
    kind: str,
    drawn: Callable[[str], tuple[np.ndarray, list[np.ndarray]]],
    global_batch: int,
    stream: str,
    notes: list[str],
    make: Callable[..., Batches] = frame_batches,
) -> tuple[Batches, Batches | None]:
    """Training and validation loaders over what `drawn(split)` gives: records and their frames.

    Validation takes as many held-out patients as there are, up to the training batch; below two
    there is no contrast, and validation is left out with a note.

    Args:
      stage, kind: the config's section and what its patients are called, for messages.
      stream: names the random stream, so that no two loaders draw alike.
      make: `frame_batches`, or a loader of the same arguments.
    """
    shared = {
        "seed": setting.seed,
        "image_size": setting.image_size,
        "process_index": setting.process_index,
        "process_count": setting.process_count,
    }
    rows, candidates = drawn(setting.train_split)
    # A patient may have several examinations, but stands in a batch once.
    patients = len(np.unique(setting.index.records["patient"][rows]))
    if patients < global_batch:
        raise UserError(
            f"{stage} has {patients} {kind} but its batch is {global_batch}: "
            f"the largest that fits is {patients} (--config.{stage}.global_batch={patients})"
        )
    training = make(
        setting.index, records=rows, candidates=candidates, global_batch=global_batch,
        stream=stream, train=True, **shared,
    )  # fmt: skip
    if setting.train_split == "all":
        notes.append("validation is left out: the training split is `all`")
        return training, None
    rows, candidates = drawn(setting.validation_split)
    size = min(global_batch, len(rows))
    if size < 2:
        notes.append(
            f"validation is left out: {len(rows)} held-out {kind}, and a contrast needs two"
        )
        return training, None
    validation = make(
        setting.index, records=rows, candidates=candidates, global_batch=size,
        stream=f"{stream}/validation", train=False, **shared,
    )  # fmt: skip
    return training, validation
