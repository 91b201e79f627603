"""One example of each class: which one, and what is drawn of it."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

from keras_skin.figures.class_examples import class_examples, typical_of_each_class

CLASSES = ("MEL", "NV", "DF")
ROWS = pd.DataFrame(
    [
        ("a", "MEL", "MEL", 0.70),
        ("b", "MEL", "MEL", 0.90),
        ("c", "MEL", "MEL", 0.80),
        ("d", "MEL", "NV", 0.80),
        ("e", "NV", "MEL", 0.60),
        ("f", "NV", "MEL", np.nan),
        ("g", "", "NV", 0.50),
    ],
    columns=["image_id", "label", "predicted", "dsc"],
).assign(probability_MEL=0.6, probability_NV=0.3, probability_DF=0.1)


def test_the_median_of_the_right_images_or_of_all():
    assert typical_of_each_class(ROWS, CLASSES)["image_id"].tolist() == ["c", "e"]
    assert typical_of_each_class(ROWS[::-1], CLASSES[::-1])["image_id"].tolist() == ["e", "c"]
    assert typical_of_each_class(ROWS.assign(label=""), CLASSES).empty


@pytest.fixture
def drawn(monkeypatch):
    drawn = {"titles": [], "pictures": []}
    monkeypatch.setattr(Axes, "set_title", lambda self, text, **style: drawn["titles"].append(text))
    imshow = Axes.imshow
    monkeypatch.setattr(Axes, "imshow", lambda self, image: drawn["pictures"].append(image) or imshow(self, image))
    return drawn


def test_image_true_mask_and_predicted_mask_with_its_class(tmp_path, drawn):
    truth, predicted = np.zeros((2, 30, 40), bool)
    truth[10:20], predicted[12:20] = True, True
    path = class_examples(
        ROWS, CLASSES, lambda image_id: (np.full((30, 40, 3), 99, np.uint8), truth, predicted), tmp_path / "x.png"
    )
    assert path.is_file()
    assert drawn["titles"] == ["MEL\nc", "MEL, p = 0.60\nDSC 0.800", "NV\ne", "MEL, p = 0.60\nDSC 0.600"]
    np.testing.assert_array_equal(drawn["pictures"][1][..., 0], 255 * truth)
    np.testing.assert_array_equal(drawn["pictures"][2][..., 0], 255 * predicted)


def test_nothing_is_drawn_without_labels(tmp_path):
    assert class_examples(ROWS.assign(label=""), CLASSES, lambda image_id: None, tmp_path / "x.png") is None
