"""Tensors out of PyTorch's own files, without PyTorch and without running what a pickle asks for.

A `.bin` or `.pt` file is a zip whose `data.pkl` is a pickle, and a pickle may name any function to
be called. Here it may name the few that put tensors together, which are our own; any other name
ends the reading before anything is called. Scripted modules, the form of OpenAI's releases, are
read as nested dictionaries of their attributes; their code is never looked at.
"""

from __future__ import annotations

import collections
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from endoclip_jax.errors import UserError

_DTYPES: dict[str, Any] = {
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "DoubleStorage": np.float64,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
_WRAPPERS = ("state_dict", "model")  # what training programs put the tensors under


def read_torch_file(path: Path) -> dict[str, np.ndarray]:
    """All tensors of a file, by dotted name; a training checkpoint gives those of its model.

    Raises:
      UserError: for a file of another form, a truncated one, or one whose pickle asks for anything
        but tensors.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            if len(names) != 1:
                raise UserError(f"{path} is a zip, but not one that PyTorch wrote")
            root = names[0].removesuffix("data.pkl")
            with archive.open(names[0]) as stream:
                content = _TensorUnpickler(stream, _Storages(archive, root, path), path).load()
    except zipfile.BadZipFile:
        raise UserError(
            f"{path} is not a file of today's PyTorch, or is cut short: an older one may run any "
            "code and is not opened; save it again with torch.save, or as safetensors"
        ) from None
    except UserError:
        raise
    except Exception as error:  # a pickle can be wrong in any way
        raise UserError(f"{path} cannot be read as tensors ({error}): it is damaged") from error
    return dict(_tensors(_unwrapped(content)))


class _ScriptedModule:
    """An instance of any scripted class: its attributes and nothing else."""


class _Storages:
    """The archive's raw arrays, each read once."""

    def __init__(self, archive: zipfile.ZipFile, root: str, path: Path) -> None:
        self._archive, self._root, self._path = archive, root, path
        self._read: dict[str, np.ndarray] = {}

    def __call__(self, dtype: Any, key: str) -> np.ndarray:
        if key not in self._read:
            member = self._archive.getinfo(f"{self._root}data/{key}")
            if member.compress_type != zipfile.ZIP_STORED:
                raise UserError(f"{self._path} is compressed, which PyTorch's files never are")
            raw = self._archive.read(member)
            self._read[key] = np.frombuffer(raw, dtype, count=len(raw) // np.dtype(dtype).itemsize)
        return self._read[key]


class _TensorUnpickler(pickle.Unpickler):
    """A pickle machine that knows no function but those that put tensors together."""

    def __init__(self, stream: Any, storages: _Storages, path: Path) -> None:
        super().__init__(stream, encoding="utf-8")
        self._storages, self._path = storages, path

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if module.split(".")[0] == "__torch__":
            return type(name, (_ScriptedModule,), {})
        known: dict[tuple[str, str], Callable[..., Any]] = {
            ("collections", "OrderedDict"): collections.OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _tensor,
            ("torch._utils", "_rebuild_parameter"): _parameter,
        }
        if (module, name) not in known:
            raise UserError(
                f"{self._path} asks to run {module}.{name}, which no tensor needs: it was not "
                "opened further; trust only files whose origin you know"
            )
        return known[module, name]

    def persistent_load(self, pid: Any) -> np.ndarray:
        kind, dtype, key, _device, _count = pid
        if kind != "storage":
            raise ValueError(f"unknown reference {kind!r}")
        return self._storages(dtype, str(key))


def _tensor(
    storage: np.ndarray, offset: int, shape: Sequence[int], strides: Sequence[int], *_: Any
) -> np.ndarray:
    """A view of `storage`, refused where it would reach outside."""
    last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    empty = 0 in shape
    if offset < 0 or min([*shape, *strides], default=0) < 0 or (last >= storage.size and not empty):
        raise ValueError("a tensor reaches outside its storage")
    view = np.lib.stride_tricks.as_strided(
        storage[offset:], tuple(shape), tuple(s * storage.itemsize for s in strides)
    )
    return np.ascontiguousarray(view).reshape(tuple(shape))


def _parameter(data: np.ndarray, *_: Any) -> np.ndarray:
    return data


def _unwrapped(content: Any) -> Any:
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            return content[key]
    return content


def _tensors(content: Any, prefix: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """Arrays of nested dictionaries and scripted modules under dotted names."""
    attributes = vars(content) if isinstance(content, _ScriptedModule) else content
    if not isinstance(attributes, Mapping):
        raise UserError("the file holds no dictionary of tensors: it is no model's weights")
    for name, value in attributes.items():
        if isinstance(value, np.ndarray):
            yield f"{prefix}{name}", value
        elif isinstance(value, Mapping | _ScriptedModule):
            yield from _tensors(value, f"{prefix}{name}.")
