"""The files of a preset: float16 and back, and what is refused before a number is read."""

import json
import shutil

import h5py
import numpy as np
import pytest

from keras_skin.presets import files
from keras_skin.registry import UserError
from keras_skin.run_folder import METADATA, PRESET


@pytest.fixture
def copy(preset, tmp_path):
    return shutil.copytree(preset, tmp_path / "tiny")


def edit_manifest(folder, **values):
    path = folder / PRESET
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_kernels_are_halved_and_the_rest_is_exact(tmp_path):
    generator = np.random.default_rng(0)
    arrays = {
        "layer/vars/0": generator.normal(size=(3, 3, 4, 8)).astype(np.float32),
        "layer/vars/1": generator.normal(size=8).astype(np.float32) * 1e6,
        "large/vars/0": np.full((2, 2), 1e5, np.float32),
        "seed/vars/0": np.array([[1, 2]], np.uint32),
    }
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, values in arrays.items():
            file[name] = values
        file["layer"].attrs["name"] = "conv"
    files.halve_weights(tmp_path / "a.h5", tmp_path / "b.h5")
    with h5py.File(tmp_path / "b.h5") as file:
        assert file["layer"].attrs["name"] == "conv"
        assert {name: file[name].dtype.name for name in arrays} == {
            "layer/vars/0": "float16",
            "layer/vars/1": "float32",
            "large/vars/0": "float32",
            "seed/vars/0": "uint32",
        }
        for name, values in arrays.items():
            np.testing.assert_allclose(file[name][()], values, rtol=2**-11 if name == "layer/vars/0" else 0, atol=1e-7)
    files.check_weights(tmp_path / "b.h5")


def test_a_whole_preset_is_accepted(preset):
    manifest = files.check_preset(preset)
    assert manifest["classes"] == ["benign", "malignant"]
    assert manifest["image_size"] == [32, 64]
    assert manifest["files"][files.WEIGHTS]["sha256"] == files.sha256_of(preset / files.WEIGHTS)
    assert manifest["trained_on"].keys() == {"isic2016", "isic2017"}


@pytest.mark.parametrize("name", [files.WEIGHTS, "experiment.json", "splits.csv", files.CARD])
def test_a_changed_file_is_named(copy, name):
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{name} is not the file that the preset was made with.*SHA-256 differs.*\. Get"):
        files.check_preset(copy)


@pytest.mark.parametrize("name", [files.WEIGHTS, "run.json"])
def test_a_missing_file_is_named(copy, name):
    (copy / name).unlink()
    with pytest.raises(UserError, match=f"is not complete: {name} is missing"):
        files.check_preset(copy)


def test_a_file_that_the_manifest_does_not_name(copy):
    (copy / METADATA).write_text("{}")
    with pytest.raises(UserError, match=r"holds metadata.json, which its preset.json does not name"):
        files.check_preset(copy)


def test_a_manifest_that_names_what_no_preset_has(copy):
    names = json.loads((copy / PRESET).read_text())["files"]
    edit_manifest(copy, files={**names, "../weights.pkl": names["run.json"]})
    with pytest.raises(UserError, match=r"names \.\./weights\.pkl; a preset has no such files"):
        files.check_preset(copy)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"format": 2, "files": {}}', "has format 2, this version of keras_skin reads up to 1. Install a newer version"),
        ('{"files": {}}', "expected an object with 'format': 1 and 'files'"),
        ("[1]", "expected an object"),
        ('{"form', "cannot be read as JSON"),
    ],
)
def test_a_manifest_that_is_none(copy, text, words):
    (copy / PRESET).write_text(text)
    with pytest.raises(UserError, match=words):
        files.check_preset(copy)


def write_link(file):
    file["a"] = h5py.ExternalLink("/etc/passwd", "/")


def write_circle(file):
    file.create_group("a")["b"] = file["/"]


def write_bomb(file):
    file.create_dataset("a", (10_000, 10_000), np.float32, chunks=True, compression="gzip")


def write_texts(file):
    file["a"] = ["text"]


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (write_link, "/a is a link"),
        (write_circle, "more than 100 groups"),
        (write_bomb, "its arrays need more than its"),
        (write_texts, "/a is not a plain array of numbers"),
    ],
)
def test_weights_that_are_none(tmp_path, monkeypatch, write, words):
    monkeypatch.setattr(files, "_MOST_GROUPS", 100)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        write(file)
    with pytest.raises(UserError, match=words):
        files.check_weights(tmp_path / "a.h5")


def test_weights_that_are_no_hdf5_file(tmp_path):
    (tmp_path / "a.h5").write_bytes(b"PK")
    with pytest.raises(UserError, match="is not a weights file"):
        files.check_weights(tmp_path / "a.h5")
