"""Images that only one of two runs classifies correctly: which are drawn, and what stands above them."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from keras_skin.evaluation.comparison import group_by_seed
from keras_skin.evaluation.measured_run import read_runs
from keras_skin.figures import disagreements as module
from keras_skin.figures.disagreements import disagreements
from tests.evaluation.run_folders import images, write_run

CLASSES = ("mel", "nv", "bcc")


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    folder, table = tmp_path_factory.mktemp("runs"), images(40, CLASSES)
    paths = [
        write_run(folder / "a", table, CLASSES, "jrl_isic2016", tasks=("label",), skill=1.0),
        write_run(folder / "b", table, CLASSES, "resnet50_isic2016", tasks=("label",), skill=0.0, seed=1),
        write_run(folder / "c", table, CLASSES, "unet_isic2016", tasks=("mask",)),
    ]
    return group_by_seed(read_runs(paths, "test"))


@pytest.fixture
def axes(monkeypatch):
    """The axes of every figure that is drawn."""
    result, drawing = [], module.new_figure

    class Recorded:
        def __init__(self, *arguments):
            self.context = drawing(*arguments)

        def __enter__(self):
            self.figure = self.context.__enter__()
            return self.figure

        def __exit__(self, *error):
            result.extend(self.figure.axes)
            return self.context.__exit__(*error)

    monkeypatch.setattr(module, "new_figure", Recorded)
    return result


def test_every_image_is_right_in_one_run_and_wrong_in_the_other(sides, tmp_path, axes):
    loaded = []

    def load(dataset, image_id):
        loaded.append(image_id)
        return np.full((24, 32, 3), 150, np.uint8)

    path = disagreements(sides, 0, CLASSES, load, tmp_path / "figure.png", count=3)
    with Image.open(path) as image:
        assert np.asarray(image).std() > 0
    tables = [side.runs[0].predictions.set_index("image_id") for side in sides[:2]]
    right = [table["predicted"] == table["label"] for table in tables]
    counts = [int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())]
    labels = [axis.get_ylabel() for axis in axes if axis.get_ylabel()]
    assert labels == [f"A right, B wrong ({counts[0]})", f"B right, A wrong ({counts[1]})"]
    assert len(loaded) == sum(min(count, 3) for count in counts)
    for position, image_id in enumerate(loaded):
        first = 0 if position < min(counts[0], 3) else 1
        assert right[first][image_id]
        assert not right[1 - first][image_id]
    row = tables[1].loc[loaded[0]]
    probability = row[[f"probability_{name}" for name in CLASSES]].max()
    title = axes[0].get_title(loc="left")
    assert title.splitlines()[0] == loaded[0]
    assert title.splitlines()[1] == f"true: {row['label']}"
    assert title.splitlines()[3] == f"B: {row['predicted']} {probability:.2f}"
    plt.close("all")


def test_runs_that_agree_or_do_not_classify_give_no_figure(sides, tmp_path):
    def load(dataset, image_id):
        raise AssertionError("no image is needed")

    for chosen, reference in (([sides[0], sides[2]], 0), ([sides[2], sides[0]], 0), ([sides[0]], 0)):
        assert disagreements(chosen, reference, CLASSES, load, tmp_path / "figure.png") is None
    assert not list(tmp_path.iterdir())
