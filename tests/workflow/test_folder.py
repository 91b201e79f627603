"""The run folder: where its data lie, and that one process at a time works in it."""

import pytest

from keras_skin.registry import UserError
from keras_skin.workflow.folder import RunFolder


@pytest.fixture
def folder(tmp_path):
    return RunFolder.create(tmp_path, "run")


def test_the_data_of_a_demo_lie_in_the_run_or_beside_the_fold(folder):
    folder.write_json("run.json", {"demo": True, "data_dir": None})
    (folder / "demo_data").mkdir()
    assert folder.data_dir == folder / "demo_data"
    fold = folder.fold(2)
    fold.write_json("run.json", {"demo": True, "data_dir": None})
    assert fold.data_dir == folder / "demo_data"


def test_real_data_lie_where_the_run_recorded_it(folder, tmp_path):
    folder.write_json("run.json", {"demo": False, "data_dir": str(tmp_path / "skin")})
    assert folder.data_dir == tmp_path / "skin"
    folder.write_json("run.json", {"demo": False, "data_dir": None})
    assert folder.data_dir is None


def test_the_lock_is_held_and_released(folder):
    with folder.locked(), pytest.raises(UserError, match=f"Another process works in '{folder.path}'"), folder.locked():
        pytest.fail("two have the lock")
    with folder.locked():
        pass
    with pytest.raises(KeyError), folder.locked():
        raise KeyError
    with folder.locked():
        pass
