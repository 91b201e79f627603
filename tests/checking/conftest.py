"""A stand-in data set, drawn once, and copies of it to be spoilt."""

import shutil

import pytest

from keras_skin.checking.places import resolve
from keras_skin.data.datasets import readers


@pytest.fixture(scope="session")
def stand_ins(tmp_path_factory):
    """Stand-ins of ISIC 2016 (24 + 8 images) and of ISIC 2017, which shares pictures with it; not to be changed."""
    root = tmp_path_factory.mktemp("data")
    readers.get("isic2016").info["render"](root / "isic2016", 3, {"train": 24, "test": 8}, (96, 128))
    readers.get("isic2017").info["render"](root / "isic2017", 3, {"train": 16}, (96, 128))
    return root


@pytest.fixture
def scratch(stand_ins, tmp_path):
    """A copy of it that a test may spoil; without SYNTHETIC.txt, so that counts are compared."""
    root = shutil.copytree(stand_ins, tmp_path / "data")
    for name in ("isic2016", "isic2017"):
        (root / name / "SYNTHETIC.txt").unlink()
    return root


@pytest.fixture
def place():
    """Gives the place of a data set in a folder."""
    return lambda root, name: resolve(name, str(root))
