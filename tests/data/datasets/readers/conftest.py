"""Stand-in data sets, drawn once; tests that change something change a copy."""

import shutil

import pytest

from keras_skin.data.datasets import readers

SIZE = (48, 64)


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory):
    """Gives the folder of a data set's stand-in; it must not be changed."""
    root = tmp_path_factory.mktemp("stand_ins")

    def folder(name):
        if not (root / name).exists():
            readers.get(name).info["render"](root / name, 3, None, SIZE)
        return root / name

    return folder


@pytest.fixture
def copy_of(stand_in, tmp_path):
    """Gives a copy of a data set's stand-in, to be spoiled."""
    return lambda name: shutil.copytree(stand_in(name), tmp_path / name)
