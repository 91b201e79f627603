"""Which figures a measured split gets."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest

from keras_skin.evaluation.evaluate import summarise
from keras_skin.workflow.drawing import CHARTS, Figures, class_figures


class Folder(NamedTuple):
    path: Path
    synthetic: bool = False

    def __truediv__(self, name):
        return self.path / name


def predictions(classes):
    generator = np.random.default_rng(0)
    shares = generator.dirichlet(np.ones(len(classes)), 30)
    table = pd.DataFrame(shares, columns=[f"probability_{name}" for name in classes])
    labels = [classes[index % len(classes)] for index in range(30)]
    predicted = [classes[index] for index in shares.argmax(axis=1)]
    return table.assign(image_id=[f"i{index}" for index in range(30)], label=labels, predicted=predicted)


@pytest.mark.parametrize(("classes", "has_charts"), [(("MEL", "NV", "BCC"), True), (("benign", "malignant"), False)])
def test_charts_of_classes_are_drawn_of_more_than_two(tmp_path, classes, has_charts):
    figures = Figures(Folder(tmp_path))
    class_figures(figures, "test", summarise(predictions(classes), classes, resamples=20))
    charts = {f"figures/test_{name}.png" for name in CHARTS}
    assert set(figures.captions) & charts == (charts if has_charts else set())
    assert all((tmp_path / file).is_file() for file in figures.captions)
    assert "figures/test_confusion.png" in figures.captions
