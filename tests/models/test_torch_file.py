"""The reader of PyTorch's state dicts: both formats, and what it refuses. The files are written here, without PyTorch."""

from __future__ import annotations

import hashlib
import io
import pickle
import resource
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from keras_skin.models.torch_file import read_state_dict
from keras_skin.registry import UserError

TYPES = {
    "float32": "FloatStorage",
    "float16": "HalfStorage",
    "float64": "DoubleStorage",
    "int64": "LongStorage",
    "bool": "BoolStorage",
}


class Name(NamedTuple):
    """A global of a pickle."""

    module: str
    name: str


class Call(NamedTuple):
    function: Name
    arguments: tuple[Any, ...]


class Storage(NamedTuple):
    key: str
    kind: str
    values: np.ndarray


class Pickler(pickle._Pickler):
    """Writes names that cannot be imported here."""

    dispatch: Mapping[type, Callable[..., None]] = dict(pickle._Pickler.dispatch)

    def persistent_id(self, obj: Any) -> Any:
        if not isinstance(obj, Storage):
            return None
        identifier = ("storage", Name("torch", obj.kind), obj.key, "cpu", len(obj.values))
        return identifier if self.proto == 2 else (*identifier, None)

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        if isinstance(obj, Name):
            self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())
        elif isinstance(obj, Call):
            self.save(obj.function)
            self.save(obj.arguments)
            self.write(pickle.REDUCE)
        else:
            super().save(obj, save_persistent_id)


def dumps(content: Any) -> bytes:
    file = io.BytesIO()
    Pickler(file, 2).dump(content)
    return file.getvalue()


def tensor(storage: Storage, shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0) -> Call:
    arguments = (storage, offset, shape, strides, False, OrderedDict())
    return Call(Name("torch._utils", "_rebuild_tensor_v2"), arguments)


def write_zip(path: Path, content: Any, storages: list[Storage], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("model/data.pkl", dumps(content))
        archive.writestr("model/byteorder", "little")
        for storage in storages:
            archive.writestr(f"model/data/{storage.key}", storage.values.tobytes())
        archive.writestr("model/version", "3\n")
    return path


def write_legacy(path: Path, content: Any, storages: list[Storage]) -> Path:
    head = [0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}]
    pickles = [*head, content, [storage.key for storage in storages]]
    raw = [struct.pack("<q", len(storage.values)) + storage.values.tobytes() for storage in storages]
    path.write_bytes(b"".join([dumps(item) for item in pickles] + raw))
    return path


FORMATS = pytest.mark.parametrize("write", [write_zip, write_legacy])


def state(values: np.ndarray | None = None) -> tuple[dict[str, Any], list[Storage]]:
    storage = Storage("0", "FloatStorage", np.arange(6, dtype="float32") if values is None else values)
    return {"kernel": tensor(storage, (2, 3), (3, 1))}, [storage]


@FORMATS
def test_reads_tensors_of_every_kind(write: Callable[..., Path], tmp_path: Path) -> None:
    arrays = {kind: np.arange(1, 7).astype(kind) for kind in TYPES}
    storages = [Storage(str(number), TYPES[kind], values) for number, (kind, values) in enumerate(arrays.items())]
    content: dict[str, Any] = OrderedDict(
        (kind, tensor(storage, (6,), (1,))) for kind, storage in zip(arrays, storages, strict=True)
    )
    shared = storages[0]
    content["transposed"] = tensor(shared, (3, 2), (1, 3))
    content["scalar"] = tensor(shared, (), (), 5)
    content["empty"] = tensor(shared, (0, 4), (4, 1), 6)
    parameter = Name("torch._utils", "_rebuild_parameter")
    content["parameter"] = Call(parameter, (tensor(shared, (2,), (2,), 1), True, OrderedDict()))
    result = read_state_dict(write(tmp_path / "model.pth", content, storages))
    assert list(result) == list(content)
    for kind, values in arrays.items():
        assert result[kind].dtype == kind
        np.testing.assert_array_equal(result[kind], values)
    np.testing.assert_array_equal(result["transposed"], [[1, 4], [2, 5], [3, 6]])
    np.testing.assert_array_equal(result["parameter"], [2, 4])
    assert result["scalar"] == 6
    assert result["empty"].shape == (0, 4)
    assert all(values.flags.writeable for values in result.values())


@pytest.mark.slow
@pytest.mark.parametrize("zipped", [True, False])
def test_reads_what_pytorch_writes(zipped: bool, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)).half()
    torch.save(model.state_dict(), tmp_path / "model.pth", _use_new_zipfile_serialization=zipped)
    result = read_state_dict(tmp_path / "model.pth")
    assert list(result) == list(model.state_dict())
    for name, values in model.state_dict().items():
        np.testing.assert_array_equal(result[name], values.numpy(), strict=True)


@FORMATS
def test_a_wrong_checksum_is_refused_before_reading(write: Callable[..., Path], tmp_path: Path) -> None:
    path = write(tmp_path / "model.pth", *state())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert list(read_state_dict(path, digest)) == ["kernel"]
    path.write_bytes(b"not even a pickle")
    with pytest.raises(UserError, match=rf"model.pth has the SHA-256 checksum \w{{64}}, expected {digest}.*get it again"):
        read_state_dict(path, digest)


@FORMATS
@pytest.mark.parametrize(("module", "name"), [("os", "system"), ("builtins", "eval"), ("torch", "load"), ("torch.nn", "Linear")])
def test_a_foreign_global_is_refused(write: Callable[..., Path], module: str, name: str, tmp_path: Path) -> None:
    content, storages = state()
    proof = tmp_path / "called"
    content["call"] = Call(Name(module, name), (f"open({str(proof)!r}, 'w')" if name == "eval" else f"touch {proof}",))
    with pytest.raises(UserError, match=rf"model.pth is refused: it names {module}.{name}, which is not part of a tensor"):
        read_state_dict(write(tmp_path / "model.pth", content, storages))
    assert not proof.exists()


def test_a_tampered_zip_file_is_refused(tmp_path: Path) -> None:
    content, storages = state()
    path = write_zip(tmp_path / "model.pth", content, storages)
    path.write_bytes(path.read_bytes().replace(storages[0].values.tobytes(), bytes(24)))
    with pytest.raises(UserError, match=r"model.pth is damaged, or is not a PyTorch file \(BadZipFile: Bad CRC-32"):
        read_state_dict(path)
    write_zip(path, content, storages, zipfile.ZIP_DEFLATED)
    with pytest.raises(UserError, match=r"is refused: its member model/byteorder is compressed"):
        read_state_dict(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.json", "{}")
    with pytest.raises(UserError, match=r"is refused: it has no data.pkl"):
        read_state_dict(path)


def test_a_tampered_legacy_file_is_refused(tmp_path: Path) -> None:
    path = write_legacy(tmp_path / "model.pth", *state())
    complete = path.read_bytes()
    for length in range(0, len(complete), 7):
        path.write_bytes(complete[:length])
        with pytest.raises(UserError, match=r"model.pth (is damaged|is refused)"):
            read_state_dict(path)
    path.write_bytes(complete + b"\0")
    with pytest.raises(UserError, match=r"is refused: it has data after its last storage"):
        read_state_dict(path)
    path.write_bytes(complete[:-32] + struct.pack("<q", 2**40) + complete[-24:])
    with pytest.raises(UserError, match=r"is refused: a storage has 1099511627776 values, expected 6"):
        read_state_dict(path)


@pytest.mark.slow
@FORMATS
def test_every_changed_byte_is_harmless(write: Callable[..., Path], tmp_path: Path) -> None:
    path = write(tmp_path / "model.pth", *state())
    content = path.read_bytes()
    refused = 0
    for position in range(len(content)):
        changed = content[position] ^ 1 << position % 8
        path.write_bytes(content[:position] + bytes([changed]) + content[position + 1 :])
        try:
            assert all(values.nbytes <= 24 for values in read_state_dict(path).values())
        except UserError:
            refused += 1
    assert refused > len(content) / 2


NESTED = b"\x8c\x01k" + b"q\x00h\x00\x86" * 60  # a tuple of 2**60 leaves, all the same text


@pytest.mark.parametrize(
    "instructions",
    [
        NESTED,
        b"}" + NESTED + b"Ns",
        NESTED + b"h\x00\x93",
        b"(\x8c\x07storage" + NESTED + b"\x8c\x010\x8c\x03cpuK\x01tQ",
        b"Nr\xff\xff\xff\xff",  # an entry of the memo far away, for which pickle.Unpickler allocates 32 GB
    ],
    ids=["content", "key", "name", "storage", "memo"],
)
def test_a_small_file_takes_little_time_and_memory(instructions: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", b"\x80\x02" + instructions + b".")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=r"model.pth is refused"):
        read_state_dict(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KB


@FORMATS
@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [
        ((7,), (1,), 0),
        ((2, 3), (4, 1), 0),
        ((6,), (1,), 1),
        ((3,), (-1,), 2),
        ((2,), (1,), -1),
        ((10**12,), (0,), 0),
        ((2, 3), (1,), 0),
    ],
)
def test_a_tensor_outside_of_its_storage_is_refused(
    write: Callable[..., Path], shape: tuple[int, ...], strides: tuple[int, ...], offset: int, tmp_path: Path
) -> None:
    _, storages = state()
    path = write(tmp_path / "model.pth", {"kernel": tensor(storages[0], shape, strides, offset)}, storages)
    with pytest.raises(
        UserError, match=r"is refused: (a tensor of shape .* does not fit into the 6 values|the shape, strides or)"
    ):
        read_state_dict(path)


@FORMATS
def test_other_content_is_refused(write: Callable[..., Path], tmp_path: Path) -> None:
    content, storages = state()
    path = tmp_path / "model.pth"
    for other, reason in (
        ([1, 2], "it holds an object of type list, expected a dict of tensors"),
        ({"epoch": 3, **content}, "its entry 'epoch' is of type int, expected a tensor"),
        ({"model": content}, "its entry 'model' is of type dict, expected a tensor"),
        ({"kernel": tensor("0", (1,), (1,))}, "it builds a tensor from something else than a storage"),  # type: ignore[arg-type]
    ):
        with pytest.raises(UserError, match=rf"is refused: {reason}.*torch.save\(model.state_dict\(\), path\)"):
            read_state_dict(write(path, other, storages))
    path.write_bytes(dumps(content))
    with pytest.raises(UserError, match=r"is refused: it does not start with PyTorch's magic number"):
        read_state_dict(path)
