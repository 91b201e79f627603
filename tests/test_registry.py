"""Temporary files: written beside their target, removed after a kill, and left to processes that still run."""

import os
import subprocess
import sys

import pytest

from keras_skin.registry import atomic_path, clipped, did_you_mean, listed, remove_temporaries

KILLED = """
import os, signal, sys
from keras_skin.registry import atomic_path
with atomic_path(sys.argv[1] + "/report.html") as file, atomic_path(sys.argv[1] + "/saved_model/1") as folder:
    file.write_text("half")
    folder.mkdir()
    (folder / "half").write_text("half")
    if len(sys.argv) > 2:
        print("written", flush=True)
        sys.stdin.read()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_what_a_killed_process_has_left_is_removed(tmp_path):
    (tmp_path / "report.html").write_text("whole")
    (tmp_path / ".lock").write_text("")
    (tmp_path / ".hidden-file").write_text("the user's")
    (tmp_path / "a-b").write_text("")
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert len(names(tmp_path)) == 6
    removed = remove_temporaries(tmp_path)
    assert sorted(path.name.partition("-")[2] for path in removed) == ["1", "report.html"]
    assert names(tmp_path) == [".hidden-file", ".lock", "a-b", "report.html"]
    assert remove_temporaries(tmp_path) == []


def test_files_of_a_process_that_still_runs_stay(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path), "wait"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "written\n"
        before = names(tmp_path)
        assert len(before) == 2
        assert remove_temporaries(tmp_path) == []
        assert names(tmp_path) == before
        process.kill()
    assert len(remove_temporaries(tmp_path)) == 2


def test_only_the_folder_itself(tmp_path):
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert [path.name[9:] for path in remove_temporaries(tmp_path, recursive=False)] == ["-report.html"]
    assert len(names(tmp_path)) == 1
    assert names(tmp_path)[0].startswith("saved_model/.")


def test_a_temporary_name_is_ten_characters_longer_than_its_target(tmp_path):
    """The longest names of images count on it."""
    with atomic_path(tmp_path / "name") as temporary:
        assert len(temporary.name) == len("name") + 10
        temporary.write_text("")
        with atomic_path(tmp_path / "name") as other:
            assert other != temporary
            other.write_text("")


def test_nothing_is_left_where_the_disk_is_full(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    (tmp_path / "name").write_text("before")
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"), atomic_path(tmp_path / "name") as temporary:
        temporary.write_text("after")
    assert names(tmp_path) == ["name"]
    assert (tmp_path / "name").read_text() == "before"


def test_long_words_are_clipped_and_compared_with_nothing():
    assert clipped("a" * 80) == "a" * 80
    assert clipped("a" * 81) == "a" * 77 + "..."
    assert did_you_mean("a" * 1000, ["a" * 999]) == ""
    assert listed(["a" * 81, "b", "c"], 2) == f"{'a' * 77}..., b and 1 more"
