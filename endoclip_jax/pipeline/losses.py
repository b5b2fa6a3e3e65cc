"""Which form of the contrastive loss a stage gets; stages themselves know no device."""

from __future__ import annotations

from jax.sharding import Mesh

from endoclip_jax.objectives import dense
from endoclip_jax.objectives.dense import ContrastiveLoss
from endoclip_jax.objectives.memory import predict_temporaries
from endoclip_jax.objectives.streaming import streaming_loss
from endoclip_jax.pipeline.run import Run
from endoclip_jax.records.attributes import NUM_BITS
from endoclip_jax.training.sharding import BATCH_AXES, batch_shards


def contrastive_of(run: Run, section: str, mesh: Mesh) -> ContrastiveLoss:
    """The loss that `loss.implementation` means for a stage's batch.

    Says which one it is and the memory that is predicted for it, before anything is compiled.
    """
    batch = run.config[section].global_batch
    devices = batch_shards(mesh)
    predicted = predict_temporaries(batch, run.config.model.embed_dim, NUM_BITS, devices)
    chosen, reason = run.config.loss.implementation, ""
    if section == "stage3" and run.config.stage3.attention == "pairwise":
        chosen, reason = "dense", "pairwise attention has no streaming form; "
    elif chosen == "auto":
        chosen = predicted.choice
    run.say(
        f"{section}: {chosen} loss of {batch} pairs on {devices} device{'s' * (devices > 1)} "
        f"({reason}predicted temporaries a device: dense {predicted.dense / 1e6:,.1f} MB, "
        f"streaming {predicted.streaming / 1e6:,.1f} MB)"
    )
    return streaming_loss(mesh, BATCH_AXES) if chosen == "streaming" else dense.contrastive_loss
