"""PyTorch's state dict files (`.pth`), read with numpy alone.

A `.pth` file is a pickle, which can name any function to be called. The reader looks up no name: tensors and ordered dicts are
built by this module, and every other name is refused. Format: `torch.serialization` of PyTorch 2.
"""

from __future__ import annotations

import hashlib
import io
import math
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_skin.registry import UserError

_STORAGES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "<?",
}
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001


class _Refused(Exception):
    """A pickled name or structure that no state dict has; the message is the reason."""


@dataclass(frozen=True)
class _Storage:
    """A reference to the memory of tensors: its key in the file, its type and its number of values."""

    key: str
    dtype: str
    count: int


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self, values: np.ndarray) -> np.ndarray:
        """Returns a copy of the tensor's values in its storage; offset and strides count values."""
        if len(self.shape) != len(self.strides) or min((self.offset, *self.shape, *self.strides)) < 0:
            raise _Refused(f"a tensor has shape {self.shape}, strides {self.strides} and offset {self.offset}")
        last = self.offset + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
        if 0 not in self.shape and max(last + 1, math.prod(self.shape)) > len(values):
            raise _Refused(f"a tensor of shape {self.shape} does not fit into the {len(values)} values of its storage")
        steps = tuple(stride * values.itemsize for stride in self.strides)
        return np.lib.stride_tricks.as_strided(values[self.offset :], self.shape, steps, writeable=False).copy()


class _Unpickler(pickle.Unpickler):
    """Unpickles storages, tensors and ordered dicts, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        allowed: dict[str, Callable[..., Any]] = {
            "collections.OrderedDict": OrderedDict,
            "torch._utils._rebuild_tensor_v2": self._tensor,
            "torch._utils._rebuild_parameter": self._parameter,
        }
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        if f"{module}.{name}" not in allowed:
            raise _Refused(f"it names {module}.{name}, which is not part of a tensor")
        return allowed[f"{module}.{name}"]

    def persistent_load(self, identifier: Any) -> _Storage:
        kind, dtype, key, _device, count, *view = identifier
        if kind != "storage" or dtype not in _STORAGES.values() or view not in ([], [None]):
            raise _Refused(f"it refers to {kind!r} data, expected the storage of a tensor")
        return _Storage(str(key), dtype, int(count))

    def _tensor(self, storage: Any, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any) -> _Tensor:
        if not isinstance(storage, _Storage):
            raise _Refused("a tensor has no storage")
        return _Tensor(storage, offset, tuple(shape), tuple(strides))

    def _parameter(self, tensor: Any, *_: Any) -> Any:
        return tensor


def read_state_dict(path: str | Path, sha256: str | None = None) -> dict[str, np.ndarray]:
    """Returns the tensors of a PyTorch state dict by name, in the file's order.

    Reads both formats of `torch.save(model.state_dict(), path)`: zip files and the older format. Shapes are PyTorch's, for
    example (out, in, height, width) for the kernel of a convolution.

    Args:
        path: the file.
        sha256: expected checksum of the whole file, 64 hexadecimal digits; None to read any file.

    Raises:
        UserError: if the file cannot be read; if its checksum differs, before it is parsed; if its pickle names anything but
            tensors; if it is damaged or not a state dict.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}. Expected a .pth file.") from error
    digest = hashlib.sha256(content).hexdigest()
    if sha256 is not None and digest != sha256:
        raise UserError(
            f"{path} has the SHA-256 checksum {digest}, expected {sha256}. The file is damaged or another one: "
            "delete it and get it again."
        )
    read = _read_zip if content.startswith(b"PK") else _read_legacy
    try:
        return read(content)
    except _Refused as reason:
        raise UserError(f"{path} is refused: {reason}. Expected the file of torch.save(model.state_dict(), path).") from reason
    except Exception as error:  # a damaged pickle or zip file raises nearly every exception of Python
        raise UserError(
            f"{path} is damaged, or is not a PyTorch file ({type(error).__name__}: {error}). Expected the file of "
            "torch.save(model.state_dict(), path)."
        ) from error


def _read_zip(content: bytes) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        folder = next((name.removesuffix("data.pkl") for name in archive.namelist() if name.endswith("/data.pkl")), None)
        if folder is None:
            raise _Refused("it has no data.pkl")

        def read(name: str) -> bytes:
            member = archive.getinfo(folder + name)
            if member.compress_type != zipfile.ZIP_STORED:  # PyTorch never compresses; a small file could fill the memory
                raise _Refused(f"its member {member.filename} is compressed")
            return archive.read(member)

        if f"{folder}byteorder" in archive.namelist():
            _check_byte_order(read("byteorder") == b"little")
        tensors = _tensors(_Unpickler(io.BytesIO(read("data.pkl")), encoding="utf-8").load())
        storages = {tensor.storage for tensor in tensors.values()}
        values = {storage: np.frombuffer(read(f"data/{storage.key}"), storage.dtype) for storage in storages}
    return {name: tensor.array(values[tensor.storage]) for name, tensor in tensors.items()}


def _read_legacy(content: bytes) -> dict[str, np.ndarray]:
    file = io.BytesIO(content)

    def load() -> Any:
        return _Unpickler(file, encoding="utf-8").load()

    if load() != _LEGACY_MAGIC or load() != _LEGACY_PROTOCOL:
        raise _Refused("it does not start with PyTorch's magic number and protocol 1001")
    _check_byte_order(load()["little_endian"])
    tensors = _tensors(load())
    storages = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    values = {}
    for key in load():
        storage = storages[str(key)]
        (count,) = struct.unpack("<q", file.read(8))
        if count != storage.count:
            raise _Refused(f"a storage has {count} values, expected {storage.count}")
        values[storage] = np.frombuffer(file.read(count * np.dtype(storage.dtype).itemsize), storage.dtype, count)
    if file.read(1):
        raise _Refused("it has data after its last storage")
    return {name: tensor.array(values[tensor.storage]) for name, tensor in tensors.items()}


def _check_byte_order(little: bool) -> None:
    if not little:
        raise _Refused("it was written by a machine with big-endian numbers")


def _tensors(content: Any) -> dict[str, _Tensor]:
    if not isinstance(content, dict):
        raise _Refused(f"it holds an object of type {type(content).__name__}, expected a dict of tensors by name")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, _Tensor):
            raise _Refused(f"its entry {name!r} is of type {type(value).__name__}, expected a tensor")
    return dict(content)
