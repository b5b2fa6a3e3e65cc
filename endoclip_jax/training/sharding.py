"""Where arrays live: a mesh of devices with the axes `data`, `fsdp` and `model`.

    axis     what it splits
    data     the batch
    fsdp     the batch as well, and parameters with the optimizer's state: each is gathered for use
    model    the matrices of MLPs and attention, between the two of which activations are split

Which dimension of which parameter goes over which axis is a table of regular expressions on names.
Modules, stages and losses know nothing of it: arrays are placed, and XLA derives the rest. The
numbers are the same on every mesh, but for the order of sums.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from endoclip_jax.errors import UserError

AXES = ("data", "fsdp", "model")
BATCH_AXES = ("data", "fsdp")

# The end of a parameter's name, and its dimensions' axes; the first that fits. A pair of matrices
# is split by columns, then by rows, so that what lies between them stays split over `model`.
RULES: tuple[tuple[str, PartitionSpec], ...] = (
    (r"block_\d+/(attention/qkv|up)/kernel", PartitionSpec("fsdp", "model")),
    (r"block_\d+/(attention/qkv|up)/bias", PartitionSpec("model")),
    (r"block_\d+/(attention/out|down)/kernel", PartitionSpec("model", "fsdp")),
    (r"patch_embedding/kernel", PartitionSpec(None, None, None, "fsdp")),
    (r"(token|position)_embedding", PartitionSpec(None, "fsdp")),
    (r"projection/kernel", PartitionSpec("fsdp", None)),
    (r"(image_to_text|text_to_image)/(query|key|value)/kernel", PartitionSpec("fsdp", None)),
)


def make_mesh(
    sizes: Mapping[str, int] | None = None, devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """A mesh over all devices of the job (or over those given).

    Args:
      sizes: devices along `data`, `fsdp` and `model`, 1 where an axis is missing; one of them may
        be -1: what is left. None: all along `data`.

    Raises:
      UserError: if they do not make up the devices, or `model` would span processes.
    """
    devices = jax.devices() if devices is None else devices
    wanted = {axis: int((sizes or {"data": -1}).get(axis, 1)) for axis in AXES}
    text = " x ".join(f"{axis}={size}" for axis, size in wanted.items())
    free = [axis for axis, size in wanted.items() if size == -1]
    fixed = int(np.prod([size for size in wanted.values() if size != -1]))
    if len(free) > 1 or any(size < 1 and size != -1 for size in wanted.values()):
        raise UserError(f"config.mesh is {text}: sizes are 1 or more, and one of them may be -1")
    if len(devices) % fixed or (not free and fixed != len(devices)):
        raise UserError(
            f"config.mesh is {text}, which does not make up this job's {len(devices)} devices: "
            "set one axis to -1, or the sizes so that their product is that number"
        )
    shape = [len(devices) // fixed if size == -1 else size for size in wanted.values()]
    mesh = Mesh(np.asarray(devices).reshape(shape), AXES)
    if _local_devices(mesh) % mesh.shape["model"]:
        raise UserError(
            f"config.mesh.model={mesh.shape['model']} does not divide the "
            f"{_local_devices(mesh)} devices of a process: a matrix cannot span processes"
        )
    return mesh


def data_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """All devices of the job (or those given) along `data`: parameters are everywhere."""
    return make_mesh(None, devices)


def batch_shards(mesh: Mesh) -> int:
    """Into how many parts the global batch is split."""
    return int(np.prod([mesh.shape[axis] for axis in BATCH_AXES]))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def over_data(mesh: Mesh) -> NamedSharding:
    """Rows split over the devices; along `model` each row is on all."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Copies a tree of host or device arrays to every device of the mesh."""
    return _lay_out(tree, jax.tree.map(lambda _: replicated(mesh), tree), mesh)


def shardings(tree: Any, mesh: Mesh) -> Any:
    """For every array of a tree the sharding its name asks for; without a rule it is everywhere.

    An optimizer's moments end in their parameter's name, and so lie beside it.

    Raises:
      UserError: for an array that an axis does not divide.
    """

    def of(path: Any, leaf: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return NamedSharding(mesh, _spec(name, leaf.shape, mesh))

    return jax.tree_util.tree_map_with_path(of, tree)


def distribute(tree: Any, mesh: Mesh) -> Any:
    """Lays a tree of host or device arrays out as `shardings` says."""
    return _lay_out(tree, shardings(tree, mesh), mesh)


def _lay_out(tree: Any, layout: Any, mesh: Mesh) -> Any:
    """Over several processes each lays its own part; all have to hold the same whole.

    `jax.device_put` would send every array round to compare it first.
    """
    if not mesh.is_multi_process:
        return jax.device_put(tree, layout)

    def own_part(leaf: Any, sharding: NamedSharding) -> jax.Array:
        host = np.asarray(leaf)
        return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

    return jax.tree.map(own_part, tree, layout)


def _spec(name: str, shape: Sequence[int], mesh: Mesh) -> PartitionSpec:
    rule = next((spec for ending, spec in RULES if re.search(f"(^|/){ending}$", name)), ())
    axes = [axis if axis is not None and mesh.shape[axis] > 1 else None for axis in rule]
    for dimension, axis in zip(shape, axes, strict=False):
        if axis is not None and dimension % mesh.shape[axis]:
            raise UserError(
                f"config.mesh.{axis}={mesh.shape[axis]} does not divide the {dimension} of {name} "
                f"{tuple(shape)}: take a divisor of {dimension}"
            )
    return PartitionSpec(*axes) if any(axes) else PartitionSpec()


def _local_devices(mesh: Mesh) -> int:
    return sum(device.process_index == jax.process_index() for device in mesh.devices.flat)


def local_share(mesh: Mesh) -> int:
    """Into how many parts this process's rows are split."""
    return _local_devices(mesh) // mesh.shape["model"]


def row_by_row(function: Callable[[Any], Any], mesh: Mesh) -> Callable[[Any], Any]:
    """A compiled function of a batch whose rows do nothing to each other: each device does its own,
    and none waits for another.
    """
    rows = PartitionSpec(BATCH_AXES)
    # Not checked: what is the same along `model` in is so out.
    return jax.jit(
        jax.shard_map(function, mesh=mesh, in_specs=rows, out_specs=rows, check_vma=False)
    )


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
