import numpy as np
import pandas as pd
import pytest
from PIL import Image

from keras_skin.figures.examples import examples_figure, in_turn

CLASSES = ("mel", "nv")
BANNER = (0xB0, 0x00, 0x20)


def table(rows):
    """From (id, true class, probability of mel)."""
    frame = pd.DataFrame(rows, columns=["image_id", "label", "probability_mel"])
    frame["probability_nv"] = 1 - frame["probability_mel"]
    return frame.assign(predicted=np.where(frame["probability_mel"] > 0.5, "mel", "nv"))


ROWS = table(
    [
        ("a", "mel", 0.9),
        ("b", "mel", 0.7),
        ("c", "nv", 0.01),
        ("d", "nv", 0.02),
        ("e", "nv", 0.8),
        ("f", "mel", 0.3),
        ("g", "", 1.0),
    ]
)


def image(image_id):
    return np.full((30, 40, 3), 40 * "abcdefg".index(image_id), np.uint8)


def test_true_classes_take_turns_the_most_probable_first():
    rows = pd.DataFrame({"image_id": list("abcdef"), "label": list("xxxyyx"), "probability": [0.7, 0.9, 0.9, 0.6, 0.8, 0.5]})
    assert in_turn(rows, 6)["image_id"].tolist() == ["b", "e", "c", "d", "a", "f"]
    assert in_turn(rows, 2)["image_id"].tolist() == ["b", "e"]


def test_shows_the_most_probable_of_right_and_wrong(tmp_path):
    image_ids = []

    def load(image_id):
        image_ids.append(image_id)
        return image(image_id)

    path = examples_figure(ROWS, CLASSES, load, tmp_path / "deep" / "figure.png", count=3)
    assert image_ids == ["c", "a", "d", "e", "f"]
    with Image.open(path) as picture:
        assert np.asarray(picture).std() > 0


def test_captions_have_truth_prediction_and_probability(tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    titles = []
    monkeypatch.setattr(Axes, "set_title", lambda self, text, **style: titles.append(text))
    examples_figure(ROWS, CLASSES, image, tmp_path / "figure.png")
    assert titles == [
        "c\nnv  0.99",
        "a\nmel  0.90",
        "d\nnv  0.98",
        "b\nmel  0.70",
        "e\nnv, predicted mel  0.80",
        "f\nmel, predicted nv  0.70",
    ]


@pytest.mark.parametrize("rows", [ROWS.iloc[:4], ROWS.iloc[4:6]])
def test_only_right_or_only_wrong_is_one_row_and_marked_where_synthetic(tmp_path, rows):
    path = examples_figure(rows, CLASSES, image, tmp_path / "figure.png", synthetic=True)
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert ((pixels == BANNER).all(axis=2)).sum() > 1000
    assert pixels.shape[0] < 600  # two rows are higher


def test_without_labels_nothing_is_written(tmp_path):
    assert examples_figure(ROWS.iloc[6:], CLASSES, image, tmp_path / "figure.png") is None
    assert not list(tmp_path.iterdir())
