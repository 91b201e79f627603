"""The folder that test processes share: built once, built again after a failure, never changed, deleted when old."""

import os
import time

import pytest

from tests import built_once as module
from tests.built_once import built_once


@pytest.fixture(autouse=True)
def tree(tmp_path, monkeypatch):
    """An empty folder in the place of the user's."""
    monkeypatch.setattr(module, "user_folder", lambda: tmp_path)
    module.tree_folder.cache_clear()
    yield module.tree_folder()
    module.tree_folder.cache_clear()


def write(folder):
    (folder / "file.txt").write_text("built")


def never(folder):
    pytest.fail("it was built again")


def test_it_is_built_once(tree):
    for build in (write, never):
        with built_once("run", build) as folder:
            assert folder == tree / "run"
            assert (folder / "file.txt").read_text() == "built"


def test_a_failed_build_is_repeated_from_the_start():
    def fail(folder):
        (folder / "half.txt").write_text("half")
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"), built_once("run", fail):
        pass
    with built_once("run", write) as folder:
        assert [file.name for file in folder.iterdir()] == ["file.txt"]


def test_a_changed_file_is_an_error_and_built_again():
    with (
        pytest.raises(AssertionError, match=r"changed the shared run instead of a copy: \['file.txt'\]"),
        built_once("run", write) as folder,
    ):
        (folder / "file.txt").write_text("changed by a test")
    with built_once("run", write) as folder:
        assert (folder / "file.txt").read_text() == "built"


def test_folders_of_other_trees_are_deleted_when_no_run_uses_them(tmp_path, tree):
    for name, age in (("old", 2 * module.UNUSED), ("recent", 60)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    module.tree_folder.cache_clear()
    assert module.tree_folder() == tree
    assert sorted(folder.name for folder in tmp_path.iterdir()) == sorted(["recent", tree.name])


def test_the_hash_depends_on_settings_that_change_results(monkeypatch):
    before = module.tree_hash()
    assert module.tree_hash() == before
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    assert module.tree_hash() != before
