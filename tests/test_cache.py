"""The cache command as its user meets it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from keras_skin.cache import main
from keras_skin.data.images.cache import LESIONS, PARTIAL, STORES, private_folder

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_SKIN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def make_store(folder, key, manifest):
    path = folder / STORES / key
    path.mkdir(parents=True)
    (path / "images.npy").write_bytes(b"\1" * 2**20)
    if manifest:
        (path / "manifest.json").write_text(manifest)


def test_list_and_clear(folder, capsys):
    make_store(folder, "a" * 64, '{"title": "isic2016 at 192x256", "images": 12}')
    make_store(folder, "b" * 64 + f"{PARTIAL}token", "")
    make_store(folder, "c" * 64, "{")
    lesions = folder / LESIONS / ("d" * 64)
    lesions.mkdir(parents=True)
    (lesions / "one.png").write_bytes(bytes(2**20))
    assert main([]) == 0
    listed = capsys.readouterr().out
    assert f"The cache {folder} holds" in listed
    assert "at most 20.0 GiB" in listed
    lines = {line.split()[0]: line for line in listed.splitlines()[1:]}
    assert "12 images" in lines["a" * 12]
    assert "1.0 MiB" in lines["a" * 12]
    assert "just now" in lines["a" * 12]
    assert lines["a" * 12].endswith("isic2016 at 192x256")
    assert lines["b" * 12].endswith("unfinished  incomplete")
    assert lines["c" * 12].endswith("damaged")
    assert lines["d" * 12].endswith("masks predicted by a segmenter")
    assert "1 image " in lines["d" * 12]

    assert main(["--clear"]) == 0
    cleared = capsys.readouterr().out
    assert cleared.count("removed") == 4
    assert f"freed in {folder}" in cleared
    assert not list(folder.rglob("*.npy"))
    assert not list(folder.rglob("*.png"))
    for arguments in ([], ["--clear"]):
        assert main(arguments) == 0
        assert "is empty." in capsys.readouterr().out


def test_another_folder(tmp_path, capsys):
    make_store(tmp_path, "a" * 64, '{"title": "ph2 at 32x64", "images": 1}')
    assert main(["--dir", str(tmp_path)]) == 0
    assert "ph2 at 32x64" in capsys.readouterr().out


def test_a_wrong_bound_is_an_error_of_the_user(folder, monkeypatch, capsys):
    make_store(folder, "a" * 64, "{}")
    monkeypatch.setenv("KERAS_SKIN_CACHE_GIB", "lots")
    assert main([]) == 2
    assert "KERAS_SKIN_CACHE_GIB is 'lots'" in capsys.readouterr().err


def test_it_answers_without_heavy_imports():
    code = (
        "import sys, keras_skin.cache; assert not {'tensorflow', 'keras', 'pandas', 'numpy'} & set(sys.modules), 'heavy import'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_new_folders_are_for_their_owner_only(tmp_path):
    umask = os.umask(0o022)
    try:
        (tmp_path / "shared").mkdir()
        for _ in range(2):
            private_folder(tmp_path / "shared" / "cache" / "images")
    finally:
        os.umask(umask)
    modes = [path.stat().st_mode & 0o777 for path in (tmp_path / "shared", *sorted((tmp_path / "shared").rglob("*")))]
    assert modes == [0o755, 0o700, 0o700]
