"""Where arrays live: a mesh with one `data` axis; batches split over it, parameters everywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

DATA_AXIS = "data"


def data_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A one-dimensional mesh over all devices of the job (or over those given)."""
    devices = jax.devices() if devices is None else devices
    return Mesh(np.asarray(devices), (DATA_AXIS,))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def over_data(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec(DATA_AXIS))


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Copies a tree of host or device arrays to every device of the mesh."""
    return jax.device_put(tree, replicated(mesh))


def local_share(mesh: Mesh) -> int:
    """How many of the mesh's devices belong to this process."""
    return sum(device.process_index == jax.process_index() for device in mesh.devices.flat)


def shard_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Lays this process's rows of a batch over its devices; together they are the global batch.

    Rows that do not divide evenly are padded with copies of row 0 whose `valid` is False, so that
    any batch runs on any number of devices and the padding takes no part in loss or gradient.
    """
    rows = len(batch["valid"])
    missing = -rows % local_share(mesh)
    sharding = over_data(mesh)

    def place(name: str, value: np.ndarray) -> jax.Array:
        if missing:
            filler = np.repeat(value[:1], missing, axis=0)
            value = np.concatenate([value, np.zeros_like(filler) if name == "valid" else filler])
        return jax.make_array_from_process_local_data(sharding, value)

    return {name: place(name, value) for name, value in batch.items()}
