"""Stand-in data sets, drawn once. Tests that change files change a copy."""

import shutil

import pytest

from keras_skin.data.datasets import readers

SIZE = (48, 64)


@pytest.fixture(scope="session")
def drawn(tmp_path_factory):
    """Returns a function from a data set's name to the folder of its stand-in, which must not be changed."""
    root = tmp_path_factory.mktemp("stand_ins")

    def folder(name):
        if not (root / name).exists():
            readers.get(name).info["render"](root / name, 3, None, SIZE)
        return root / name

    return folder


@pytest.fixture
def copy_of(drawn, tmp_path):
    """Returns a function from a data set's name to a copy of its stand-in, which a test may change."""
    return lambda name: shutil.copytree(drawn(name), tmp_path / name)
