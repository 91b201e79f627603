import numpy as np
import pandas as pd
import pytest
from PIL import Image

from keras_skin.figures import curriculum as module
from keras_skin.figures.curriculum import curriculum_figure

BANNER = (0xB0, 0x00, 0x20)
IMAGES = {"df": 20, "nv": 1340, "mel": 200, "none": 0}


def tables(epochs):
    index = pd.RangeIndex(1, epochs + 1, name="epoch")
    rising = np.linspace(0, 1, epochs)[:, None]
    admitted = (rising * [20, 1340, 200, 0]).astype(int)
    return (pd.DataFrame(table, index, list(IMAGES)) for table in (admitted, admitted // 10))


@pytest.mark.parametrize("epochs", [1, 5, 100])
def test_is_written_and_marked_where_synthetic(tmp_path, epochs):
    plain = curriculum_figure(*tables(epochs), IMAGES, tmp_path / "deep" / "plain.png")
    marked = curriculum_figure(*tables(epochs), IMAGES, tmp_path / "marked.png", synthetic=True)
    for path, expected in ((plain, False), (marked, True)):
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        assert pixels.std() > 0
        assert ((pixels == BANNER).all(axis=2).sum() > 1000) == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "marked.png"]


def test_cells_hold_shares_and_counts_of_common_classes_first(tmp_path, monkeypatch):
    panels = []
    cells = module._cells

    def recording(axes, values, epochs, names, numbers, *rest):
        panels.append((values, list(names), numbers))
        return cells(axes, values, epochs, names, numbers, *rest)

    monkeypatch.setattr(module, "_cells", recording)
    curriculum_figure(*tables(3), IMAGES, tmp_path / "figure.png")
    (shares, names, percents), (replays, _, counts) = panels
    assert names == ["nv (n = 1,340)", "mel (n = 200)", "df (n = 20)"]
    np.testing.assert_allclose(shares, [[0, 0.5, 1]] * 3)
    assert percents[0] == ["–", "50", "100"]
    np.testing.assert_array_equal(replays, [[0, 67, 134], [0, 10, 20], [0, 1, 2]])
    assert counts[2] == ["–", "1", "2"]


def test_nearly_none_and_nearly_all_differ_from_none_and_all():
    shares = (0.0, 0.004, 0.006, 0.994, 0.996, 1.0)
    assert [module._per_cent(share) for share in shares] == ["–", "<1", "1", "99", ">99", "100"]


def test_nothing_to_draw_writes_nothing(tmp_path):
    assert curriculum_figure(*tables(0), IMAGES, tmp_path / "figure.png") is None
    assert curriculum_figure(*tables(2), dict.fromkeys(IMAGES, 0), tmp_path / "figure.png") is None
    assert not list(tmp_path.iterdir())
