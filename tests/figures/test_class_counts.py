import numpy as np
import pytest
from PIL import Image

from keras_skin.figures.class_counts import class_balance

BEFORE = {"nv": 6705, "mel": 1113, "df": 115}
AFTER = {"df": 878, "mel": 2732, "nv": 6705}


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


@pytest.mark.parametrize("synthetic", [False, True])
def test_bars_are_as_long_as_their_counts(tmp_path, synthetic):
    path = class_balance(BEFORE, AFTER, tmp_path / "balance.png", synthetic)
    image = pixels(path)
    blue = (image == (0x00, 0x72, 0xB2)).all(axis=-1)
    rows = np.flatnonzero(blue.sum(axis=1) > 5)
    bars = np.split(rows, np.flatnonzero(np.diff(rows) > 3) + 1)
    lengths = [blue[bar].sum(axis=1).max() for bar in bars if len(bar) > 15][-3:]
    np.testing.assert_allclose(np.array(lengths) / lengths[0], np.array([6705, 1113, 115]) / 6705, atol=0.02)
    assert (image == (0xB0, 0x00, 0x20)).all(axis=-1).any() == synthetic


def test_classes_must_be_the_same(tmp_path):
    with pytest.raises(ValueError, match="The classes differ"):
        class_balance(BEFORE, {"nv": 1}, tmp_path / "balance.png")
