"""One of the two processes of `test_two_processes_of_four_devices`: ADDRESS RANK FOLDER."""

import sys
from pathlib import Path

import jax
import numpy as np
from batches import OPTIONS, random_batch
from jax.experimental import multihost_utils

from endoclip_jax.objectives.streaming import streaming_loss
from endoclip_jax.training.sharding import data_mesh, replicate, shard_batch


def main(address: str, rank: int, folder: Path) -> None:
    jax.distributed.initialize(address, num_processes=2, process_id=rank)
    mesh = data_mesh()
    assert mesh.size == 8 and jax.local_device_count() == 4
    rows = random_batch(9, 24) | {"valid": np.arange(24) < 21}
    batch = shard_batch({name: x[rank * 12 :][:12] for name, x in rows.items()}, mesh)
    for number in (2, 4):
        target, norm = OPTIONS[number]
        loss = streaming_loss(mesh, tile=2)

        def of_batch(v, t, scale, batch, loss=loss, target=target, norm=norm):
            return loss(
                v, t, scale, batch["a_v"], batch["a_t"],
                target=target, target_norm=norm, valid=batch["valid"],
            )  # fmt: skip

        step = jax.jit(jax.value_and_grad(of_batch, argnums=(0, 1, 2), has_aux=True))
        result = step(batch["v"], batch["t"], replicate(np.float32(2.5), mesh), batch)
        whole = [multihost_utils.process_allgather(x, tiled=True) for x in jax.tree.leaves(result)]
        if rank == 0:
            np.savez(folder / f"{number}.npz", *whole)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
