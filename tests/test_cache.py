"""The cache command as its user meets it."""

import subprocess
import sys
from pathlib import Path

import pytest

from keras_skin.cache import main
from keras_skin.data.images.cache_folder import CacheFolder

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_SKIN_CACHE", str(tmp_path / "cache"))
    return CacheFolder()


def make_entry(folder, key, title):
    lease = folder.acquire(key)
    (lease.path / "pixels.bin").write_bytes(bytes(2**20))
    (lease.path / "manifest.json").write_text(f'{{"title": "{title}", "images": 12}}')
    folder.publish(lease)
    return lease


def test_list_and_clear(folder, capsys):
    make_entry(folder, "a" * 64, "isic2016").close()
    held = make_entry(folder, "b" * 64, "ph2")
    assert main([]) == 0
    listed = capsys.readouterr().out
    assert f"The cache {folder.path} holds 2.0 MiB of at most 20.0 GiB:" in listed
    lines = {line.split()[0]: line for line in listed.splitlines()[1:]}
    assert "12 images" in lines["a" * 12]
    assert "1.0 MiB" in lines["a" * 12]
    assert lines["a" * 12].endswith("isic2016")
    assert "just now" in lines["a" * 12]
    assert lines["b" * 12].endswith("ph2  in use by a run")

    assert main(["--clear"]) == 0
    cleared = capsys.readouterr().out
    assert f"removed  {'a' * 12}" in cleared
    assert f"kept     {'b' * 12}" in cleared
    assert "1.0 MiB freed" in cleared

    held.close()
    main(["--clear"])
    assert "is empty" not in capsys.readouterr().out
    for arguments, expected in ([[], "is empty."], [["--clear"], "is empty already."]):
        assert main(arguments) == 0
        assert expected in capsys.readouterr().out


def test_half_made_and_damaged_entries_are_named_so(folder, capsys):
    folder.acquire("c" * 64).close()
    lease = make_entry(folder, "d" * 64, "ph2")
    (lease.path / "manifest.json").write_text("{")
    main([])
    listed = capsys.readouterr().out
    assert "unfinished  half made" in listed
    assert "damaged" in listed


def test_mistakes_are_told_without_a_traceback(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KERAS_SKIN_CACHE_GIB", "lots")
    assert main([]) == 2
    assert "KERAS_SKIN_CACHE_GIB is 'lots'" in capsys.readouterr().err
    assert main(["--dir", str(tmp_path / "nowhere"), "--clear"]) == 2
    monkeypatch.delenv("KERAS_SKIN_CACHE_GIB")
    assert main(["--dir", str(tmp_path / "nowhere"), "--clear"]) == 0
    assert "is empty already" in capsys.readouterr().out


def test_starts_without_anything_heavy():
    code = (
        "import sys, keras_skin.cache; assert not {'tensorflow', 'keras', 'pandas', 'numpy'} & set(sys.modules), 'heavy import'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
