"""Finding presets: names, folders, archives and addresses, and every way to refuse them."""

import io
import json
import os
import shutil
import stat
import zipfile
from urllib.error import URLError

import numpy as np
import pytest

import keras_skin
from keras_skin.presets import sources
from keras_skin.presets.files import FILES, WEIGHTS, sha256_of
from keras_skin.registry import UserError
from keras_skin.run_folder import PRESET


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_SKIN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def shipped(preset, monkeypatch):
    """The preset `tiny` as one of the package."""
    monkeypatch.setattr(sources, "_shipped_folder", lambda: preset.parent)
    return preset


def pack(folder, path, extra=(), root="tiny"):
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, f"{root}/{file.relative_to(folder)}")
        for name, content in extra:
            archive.writestr(name, content)
    return path


@pytest.fixture
def archive(preset, tmp_path):
    return pack(preset, tmp_path / "tiny.zip")


def test_every_preset_of_the_package_is_whole_and_small():
    total = 0
    for name in keras_skin.list_presets():
        folder = sources.locate(name)
        assert json.loads((folder / PRESET).read_text())["name"] == name
        assert set(json.loads((folder / PRESET).read_text())["trained_on"]) <= {"isic2016", "isic2017"}
        total += sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    assert total < 40e6


def test_a_name(shipped):
    assert sources.list_presets() == ["tiny"]
    assert sources.locate("tiny") == shipped


def test_a_mistyped_name_gets_a_suggestion(shipped):
    with pytest.raises(UserError, match=r"neither a folder nor a preset 'tinny'. Did you mean 'tiny'\? Presets: tiny\. Expected"):
        sources.locate("tinny")


def test_a_name_that_is_also_a_folder(shipped, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()
    assert sources.locate("tiny") == shipped
    assert "'tiny' is taken as the preset. To take the folder of the same name, write ./tiny" in caplog.text
    assert sources.locate("./tiny").samefile(tmp_path / "tiny")


def test_other_folders_pass_and_are_no_presets(tmp_path):
    assert sources.locate(str(tmp_path)) == tmp_path
    assert sources.locate(str(tmp_path / "nowhere")) == tmp_path / "nowhere"
    with pytest.raises(UserError, match=r"is no preset: it has no preset.json"):
        sources.locate_preset(str(tmp_path))


def test_an_archive_is_unpacked_once_and_again_after_a_change(archive, preset, cache):
    folder = sources.locate(str(archive))
    assert folder.name == "tiny"
    assert cache in folder.parents
    assert sha256_of(folder / WEIGHTS) == sha256_of(preset / WEIGHTS)
    before = (folder / WEIGHTS).stat().st_ino
    assert sources.locate(str(archive)) == folder
    assert (folder / WEIGHTS).stat().st_ino == before
    (folder / WEIGHTS).write_bytes(b"changed")
    assert sha256_of(sources.locate(str(archive)) / WEIGHTS) == sha256_of(preset / WEIGHTS)


@pytest.mark.parametrize("name", ["../evil", "tiny/../../evil", "/tiny/run.json", "tiny/evil.pkl", "tiny\\run.json", "run.json"])
def test_a_member_with_another_name(preset, tmp_path, name):
    path = pack(preset, tmp_path / "a.zip", [(name, "x")])
    with pytest.raises(UserError, match=r"which does not belong to a preset. Nothing was unpacked"):
        sources.locate(str(path))
    assert not list(tmp_path.rglob("evil*"))


def test_a_link_in_an_archive(preset, tmp_path):
    link = zipfile.ZipInfo("tiny/metadata.json")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    path = pack(preset, tmp_path / "a.zip", [(link, "/etc/passwd")])
    with pytest.raises(UserError, match=r"holds 'tiny/metadata.json', which does not belong"):
        sources.locate(str(path))


def test_a_file_twice(preset, tmp_path):
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = pack(preset, tmp_path / "a.zip", [("tiny/run.json", "{}")])
    with pytest.raises(UserError, match=r"holds 'tiny/run.json'"):
        sources.locate(str(path))


def test_archives_without_a_preset(preset, tmp_path):
    path = pack(preset, tmp_path / "two.zip", [("other/metadata.json", "{}")])
    with pytest.raises(UserError, match=r"expected one folder NAME/ with preset.json, found other/, tiny/"):
        sources.locate(str(path))
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    with pytest.raises(UserError, match="found nothing"):
        sources.locate(str(tmp_path / "empty.zip"))
    (tmp_path / "text.zip").write_text("no archive")
    with pytest.raises(UserError, match="cannot be unpacked: File is not a zip file"):
        sources.locate(str(tmp_path / "text.zip"))


def test_an_archive_with_a_changed_file_leaves_nothing(preset, tmp_path, cache):
    copy = shutil.copytree(preset, tmp_path / "tiny")
    (copy / "metrics.json").write_text("{}")
    with pytest.raises(UserError, match=r"metrics.json is not the file that the preset was made with"):
        sources.locate(str(pack(copy, tmp_path / "a.zip")))
    assert not [path for path in cache.rglob("*") if path.is_file()]


def test_a_damaged_archive(archive):
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 1
    archive.write_bytes(content)
    with pytest.raises(UserError, match="cannot be unpacked: Bad CRC"):
        sources.locate(str(archive))


def test_an_archive_that_is_too_large(archive, monkeypatch):
    monkeypatch.setattr(sources, "MOST_BYTES", 1000)
    with pytest.raises(UserError, match=r"more than the 0.0 MiB of a preset"):
        sources.locate(str(archive))


class Answer(io.BytesIO):
    def __init__(self, content, address):
        super().__init__(content)
        self.geturl = lambda: address


@pytest.fixture
def server(archive, monkeypatch):
    """Answers every request with the archive; returns the list of the requests."""
    requests = []

    def urlopen(address, timeout):
        requests.append(address)
        return Answer(archive.read_bytes(), address)

    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    return requests


def test_an_address_is_downloaded_once_and_opened(server, archive, preset):
    address = f"https://example.org/tiny.zip#sha256={sha256_of(archive).upper()}"
    folder = sources.locate_preset(address)
    assert (folder.name, sha256_of(folder / WEIGHTS)) == ("tiny", sha256_of(preset / WEIGHTS))
    assert sources.locate_preset(address) == folder
    assert server == ["https://example.org/tiny.zip"]


def test_a_wrong_checksum(server, archive, cache):
    with pytest.raises(UserError, match=f"the file has SHA-256 {sha256_of(archive)}. It is not the file of this checksum"):
        sources.locate(f"https://example.org/tiny.zip#sha256={'0' * 64}")
    assert not [path for path in cache.rglob("*") if path.is_file()]


@pytest.mark.parametrize("address", ["https://example.org/tiny.zip", "https://example.org/tiny.zip#sha256=12", "https://a/b#x"])
def test_an_address_without_a_checksum(server, address):
    with pytest.raises(UserError, match=r"the checksum is missing or invalid. Expected https"):
        sources.locate(address)
    assert not server


@pytest.mark.parametrize("address", ["http://example.org/a.zip", "ftp://example.org/a.zip", "file:///etc/passwd", "https:///a"])
def test_an_address_that_is_not_https(server, address):
    with pytest.raises(UserError, match=r"only addresses that start with https:// are downloaded"):
        sources.locate(f"{address}#sha256={'0' * 64}")
    assert not server


def test_a_redirection_out_of_https_too_large_files_and_no_network(archive, monkeypatch):
    address = f"https://example.org/tiny.zip#sha256={sha256_of(archive)}"
    answer = Answer(archive.read_bytes(), "http://example.org/tiny.zip")
    monkeypatch.setattr("urllib.request.urlopen", lambda address, timeout: answer)
    with pytest.raises(UserError, match=r"leads to http://example.org/tiny.zip, which is not encrypted"):
        sources.locate(address)
    monkeypatch.setattr(sources, "MOST_BYTES", 1000)
    monkeypatch.setattr("urllib.request.urlopen", lambda address, timeout: Answer(archive.read_bytes(), address))
    with pytest.raises(UserError, match="too large for a preset"):
        sources.locate(address)

    def fail(address, timeout):
        raise URLError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", fail)
    with pytest.raises(UserError, match="cannot be downloaded: no route to host"):
        sources.locate(address)


@pytest.mark.skipif(os.name == "nt" or not hasattr(os, "geteuid"), reason="folders that cannot be written are of POSIX")
def test_a_cache_that_cannot_be_written(archive, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KERAS_SKIN_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"cannot be unpacked into the cache .* Name another folder with KERAS_SKIN_CACHE"):
        sources.locate(str(archive))


def test_the_expected_names_are_plain():
    assert not [name for name in FILES if ".." in name or name.startswith("/")]


def test_the_model_of_a_preset_is_the_runs_in_float32(shipped, tiny_run):
    model, trained = keras_skin.from_preset("tiny"), keras_skin.load_run(tiny_run).model
    assert {weight.dtype for weight in model.weights} == {weight.dtype for weight in trained.weights}
    images = np.random.default_rng(0).uniform(0, 255, (4, 32, 64, 3)).astype(np.float32)
    for name, logits in trained.predict({"image": images}, verbose=0).items():
        np.testing.assert_allclose(model.predict({"image": images}, verbose=0)[name], logits, atol=2e-3)
    assert any(np.any(a.numpy() != b.numpy()) for a, b in zip(model.weights, trained.weights, strict=True))
    assert keras_skin.load_run("tiny").classes == ("benign", "malignant")
