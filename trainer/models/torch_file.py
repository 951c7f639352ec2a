"""Reads the tensors of a file that `torch.save` wrote, without torch and without running its code.

Such a file is made of pickles, which may name any Python function and have it called when they are
read. Here only the four names that tensors need are known, and none of them leads out of this
module: everything else is refused.
"""

from __future__ import annotations

import collections
import pickle
from collections.abc import Mapping
from typing import Any, BinaryIO, NamedTuple

import numpy as np

# torch's legacy format, which it wrote before version 1.6: torch/serialization.py.
_MAGIC = 0x1950A86A20F9469CFC6C
_FORMAT_VERSION = 1001


class _Storage(NamedTuple):
    """A row of numbers of the file, which follow after the pickles."""

    key: str
    dtype: np.dtype
    length: int


class _Tensor(NamedTuple):
    """A tensor that is a view of a storage; sizes in numbers, not in bytes."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _rebuild_tensor(
    storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any
) -> _Tensor:
    return _Tensor(storage, offset, shape, strides)


_KNOWN = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch", "FloatStorage"): np.dtype("<f4"),
    ("torch", "LongStorage"): np.dtype("<i8"),
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no tensor needs")
        return _KNOWN[module, name]

    def persistent_load(self, description: Any) -> _Storage:
        _, dtype, key, _, length, view = description
        if not isinstance(dtype, np.dtype) or view is not None:
            raise pickle.UnpicklingError("a storage of a kind that is not known")
        return _Storage(key, dtype, length)


def read_tensors(path: str) -> dict[str, np.ndarray]:
    """The state dict of a file in torch's legacy format.

    Returns:
      float32 or int64 arrays by name, in the order of the file.

    Raises:
      ValueError: it is not such a file, it is damaged, or it holds anything but tensors.
    """
    try:
        with open(path, "rb") as file:
            return _read(file)
    except OSError:
        raise
    except Exception as error:  # a damaged pickle raises errors of many types
        raise ValueError(f"{path}: cannot be read as tensors ({error})") from error


def _read(file: BinaryIO) -> dict[str, np.ndarray]:
    magic, version, system = (_Unpickler(file).load() for _ in range(3))
    if magic != _MAGIC or version != _FORMAT_VERSION or not system["little_endian"]:
        raise ValueError("not torch's legacy format")
    tensors: Mapping[str, _Tensor] = _Unpickler(file).load()
    storages = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    numbers: dict[str, memoryview] = {}
    keys = _Unpickler(file).load()
    rest = memoryview(file.read())
    for key in keys:
        end = 8 + storages[key].length * storages[key].dtype.itemsize
        if int.from_bytes(rest[:8], "little") != storages[key].length or len(rest) < end:
            raise ValueError("the file ends early")
        numbers[key], rest = rest[8:end], rest[end:]
    return {name: _array(tensor, numbers[tensor.storage.key]) for name, tensor in tensors.items()}


def _array(tensor: _Tensor, numbers: memoryview) -> np.ndarray:
    dtype = tensor.storage.dtype
    # NumPy refuses a view that would reach beyond the numbers.
    return np.ndarray(
        tensor.shape,
        dtype,
        numbers,
        tensor.offset * dtype.itemsize,
        tuple(stride * dtype.itemsize for stride in tensor.strides),
    )
