"""PyTorch's state dict files (`.pth`), read with numpy alone.

A `.pth` file is a pickle, which can name any function to be called. The reader imports and calls nothing that a file names: it
builds tensors and dicts itself, and refuses every other name. Format: `torch.serialization` of PyTorch 2.
"""

from __future__ import annotations

import hashlib
import io
import math
import pickletools
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_skin.registry import UserError

_STORAGES = {
    "torch.DoubleStorage": "<f8",
    "torch.FloatStorage": "<f4",
    "torch.HalfStorage": "<f2",
    "torch.LongStorage": "<i8",
    "torch.IntStorage": "<i4",
    "torch.ShortStorage": "<i2",
    "torch.CharStorage": "<i1",
    "torch.ByteStorage": "<u1",
    "torch.BoolStorage": "<?",
}
_NAMES = {"collections.OrderedDict", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter"}
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
        numbers = (self.offset, *self.shape, *self.strides)
        if len(self.shape) != len(self.strides) or not all(isinstance(number, int) and number >= 0 for number in numbers):
            raise _Refused("the shape, strides or offset of a tensor are invalid")
        last_value = self.offset + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
        if 0 not in self.shape and max(last_value + 1, math.prod(self.shape)) > len(values):
            raise _Refused(f"a tensor of shape {self.shape} does not fit into the {len(values)} values of its storage")
        steps = tuple(stride * values.itemsize for stride in self.strides)
        return np.lib.stride_tricks.as_strided(values[self.offset :], self.shape, steps, writeable=False).copy()


def _storage(identifier: Any) -> _Storage:
    kind, dtype, key, _device, count, *view = identifier
    types = (type(dtype), type(key), type(count))
    if kind != "storage" or types != (str, str, int) or dtype not in _STORAGES or any(view):
        raise _Refused("it refers to data that are not the storage of a tensor")
    return _Storage(key, _STORAGES[dtype], count)


def _call(name: Any, arguments: tuple[Any, ...]) -> Any:
    """Returns what a name of `_NAMES` stands for, called with these arguments."""
    match name, arguments:
        case "collections.OrderedDict", ():
            return {}
        case "torch._utils._rebuild_parameter", (_Tensor() as tensor, *_):
            return tensor
        case "torch._utils._rebuild_tensor_v2", (_Storage() as storage, offset, tuple() as shape, tuple() as strides, *_):
            return _Tensor(storage, offset, shape, strides)
    raise _Refused("it builds a tensor from something else than a storage, a shape and strides")


def _unpickle(file: io.BytesIO) -> Any:
    """Returns the next object of a file, built from plain values and tensors.

    It interprets the instructions that PyTorch writes for a state dict. `pickle.Unpickler` with its own `find_class` would be as
    strict about names, but a damaged file can make it allocate memory without bounds.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[Any, Any] = {}

    def pop(count: int) -> list[Any]:
        if count > len(stack):
            raise _Refused("its pickle is incomplete")
        values = stack[len(stack) - count :]
        del stack[len(stack) - count :]
        return values

    argument: Any
    for instruction, argument, _ in pickletools.genops(file):
        match instruction.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return stack.pop()
            case "MARK":
                marks.append(len(stack))
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(instruction.name == "NEWTRUE")
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE" | "SHORT_BINUNICODE":
                stack.append(argument)
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_TUPLE":
                stack.append(())
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(pop(int(instruction.name[-1]))))
            case "TUPLE":
                stack.append(tuple(pop(len(stack) - marks.pop())))
            case "APPEND" | "APPENDS":
                values = pop(1 if instruction.name == "APPEND" else len(stack) - marks.pop())
                stack[-1].extend(values)
            case "SETITEM" | "SETITEMS":
                values = pop(2 if instruction.name == "SETITEM" else len(stack) - marks.pop())
                if not all(isinstance(key, str) for key in values[::2]):
                    raise _Refused("it holds a dict whose keys are not names")
                stack[-1].update(zip(values[::2], values[1::2], strict=True))
            case "GLOBAL":
                stack.append(_allowed(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                stack.append(_allowed(*pop(2)))
            case "BINPERSID":
                stack.append(_storage(stack.pop()))
            case "REDUCE":
                stack.append(_call(*pop(2)))
            case "BUILD":
                stack.pop()  # attributes of a dict: PyTorch stores versions of layers there
            case other:
                raise _Refused(f"its pickle has the instruction {other}, which no state dict needs")
    raise _Refused("its pickle is incomplete")


def _allowed(module: Any, name: Any) -> str:
    if type(module) is not str or type(name) is not str:
        raise _Refused("a name in its pickle is not text")
    name = f"{module}.{name}"
    if name not in _NAMES and name not in _STORAGES:
        raise _Refused(f"it names {name}, which is not part of a tensor")
    return name


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
        tensors = _tensors(_unpickle(io.BytesIO(read("data.pkl"))))
        storages = {tensor.storage for tensor in tensors.values()}
        values = {storage: np.frombuffer(read(f"data/{storage.key}"), storage.dtype) for storage in storages}
    return {name: tensor.array(values[tensor.storage]) for name, tensor in tensors.items()}


def _read_legacy(content: bytes) -> dict[str, np.ndarray]:
    file = io.BytesIO(content)
    if _unpickle(file) != _LEGACY_MAGIC or _unpickle(file) != _LEGACY_PROTOCOL:
        raise _Refused("it does not start with PyTorch's magic number and protocol 1001")
    _check_byte_order(_unpickle(file)["little_endian"])
    tensors = _tensors(_unpickle(file))
    storages = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    values = {}
    for key in _unpickle(file):
        storage = storages[key]
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
        if not isinstance(value, _Tensor):
            raise _Refused(f"its entry {name!r} is of type {type(value).__name__}, expected a tensor")
    return dict(content)
