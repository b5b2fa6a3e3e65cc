"""How much memory the two forms of the loss take, and which of them a batch calls for.

Bytes of temporaries on each device for value and gradients, as XLA's own analysis of the compiled
programs gives them (`temp_size_in_bytes`; the table is in docs/streaming.md). Beside the loss
itself neither counts embeddings, gradients or attributes, which are there anyway.
"""

from __future__ import annotations

from dataclasses import dataclass

from endoclip_jax.objectives.tiles import MAX_TILE

# Up to here dense is taken by `auto`: it is little beside the towers, and has the fewest kernels.
DENSE_LIMIT = 256 * 2**20
_FLOAT = 4


@dataclass(frozen=True)
class Temporaries:
    """Predicted bytes a device of either form."""

    dense: int
    streaming: int

    @property
    def choice(self) -> str:
        """What `auto` takes: dense while it is small."""
        return "dense" if self.dense <= DENSE_LIMIT else "streaming"


def predict_temporaries(batch: int, dim: int, attributes: int, devices: int) -> Temporaries:
    """For a global `batch` of embeddings of `dim` numbers on so many devices.

    Dense holds seven matrices of a device's rows by the whole batch, and all texts. Streaming, an
    upper bound over the targets: three sets of a device's embeddings (the texts it holds, the next
    ones, and gradients of texts on their way; all others are summed where the results go),
    attributes and sums, and four tiles.
    """
    rows = -(-batch // devices)
    gathered = batch * dim if devices > 1 else 0
    tile = min(rows, MAX_TILE)
    return Temporaries(
        dense=_FLOAT * (7 * rows * batch + gathered),
        streaming=_FLOAT * (rows * (3 * dim + 4 * attributes + 16) + 4 * tile**2),
    )
