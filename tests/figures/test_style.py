import matplotlib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from keras_skin.figures.box_plots import segmentation_box_plots
from keras_skin.figures.class_counts import class_counts
from keras_skin.figures.confusion import confusion_matrix
from keras_skin.figures.curves import roc_and_precision_recall
from keras_skin.figures.learning import learning_curves
from keras_skin.figures.segmentation_sheet import segmentation_sheet
from keras_skin.figures.style import PREDICTED_CONTOUR, TRUE_CONTOUR

CLASSES = ("benign", "malignant")
BANNER = (0xB0, 0x00, 0x20)


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def predictions(count=30, classes=CLASSES):
    random = np.random.default_rng(0)
    truth, probabilities = random.integers(len(classes), size=count), random.dirichlet(np.ones(len(classes)), size=count)
    table = pd.DataFrame(probabilities, columns=[f"probability_{name}" for name in classes])
    table["image_id"] = [f"im{index}" for index in range(count)]
    table["label"] = [classes[index] for index in truth]
    table["predicted"] = [classes[index] for index in probabilities.argmax(axis=1)]
    table["dsc"] = np.linspace(0, 1, count)
    return table.assign(iou=table["dsc"] / (2 - table["dsc"]), mcc=table["dsc"] - 0.1)


def history(epochs):
    return pd.DataFrame(
        {"epoch": range(1, epochs + 1), "loss": 1.0, "val_loss": 1.1, "val_mask_dsc": 0.5, "learning_rate": 1e-3, "seconds": 3.0}
    )


def load(image_id):
    image = np.full((60, 80, 3), 200, np.uint8)
    truth = np.zeros((60, 80), bool)
    truth[:30, 10:40] = True
    return image, truth, np.zeros_like(truth) if image_id == "im0" else np.roll(truth, 5, axis=1)


def five_classes(path, **mark):
    return roc_and_precision_recall(predictions(classes=tuple("abcde")), tuple("abcde"), path, **mark)


def two_splits(path, **mark):
    return segmentation_box_plots({"test": predictions(), "external/ph2": predictions(1)}, path, **mark)


COUNTS = pd.DataFrame({"training": [5, 2], "test": [1, 0]}, index=CLASSES)
DRAWINGS = {
    "learning": lambda path, **mark: learning_curves(history(5), path, best_epoch=2, **mark),
    "one epoch": lambda path, **mark: learning_curves(history(1), path, **mark),
    "no epoch": lambda path, **mark: learning_curves(history(0), path, **mark),
    "confusion": lambda path, **mark: confusion_matrix(np.array([[3, 1], [0, 0]]), CLASSES, path, "Test", **mark),
    "curves": lambda path, **mark: roc_and_precision_recall(predictions(), CLASSES, path, **mark),
    "curves of five": five_classes,
    "boxes": two_splits,
    "sheet": lambda path, **mark: segmentation_sheet(predictions(), load, path, **mark),
    "sheet of two": lambda path, **mark: segmentation_sheet(predictions(2), load, path, **mark),
    "counts": lambda path, **mark: class_counts(COUNTS, path, **mark),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_figures_are_written_and_synthetic_ones_are_marked(tmp_path, name):
    plain = DRAWINGS[name](tmp_path / "deep" / "plain.png")
    assert pixels(plain).std() > 0
    assert not (pixels(plain) == BANNER).all(axis=2).any()
    marked = pixels(DRAWINGS[name](tmp_path / "marked.png", synthetic=True))
    assert (marked == BANNER).all(axis=2).sum() > 1000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "marked.png"]  # no temporary file remains


def test_curves_of_eight_classes_have_a_legend_below_them_that_is_not_cut(tmp_path):
    def rows_of_ink(count):
        classes = tuple(f"class {index} with a long name" for index in range(count))
        path = roc_and_precision_recall(predictions(200, classes), classes, tmp_path / f"{count}.png", "test")
        ink = (pixels(path) < 200).all(axis=2).any(axis=1)
        assert not ink[-2:].any(), "something touches the lower border"
        return len(ink)

    assert rows_of_ink(8) > rows_of_ink(3) + 9 * 15


def test_nothing_to_draw_writes_nothing(tmp_path):
    path = tmp_path / "figure.png"
    assert roc_and_precision_recall(predictions().assign(label="benign"), CLASSES, path) is None
    assert roc_and_precision_recall(predictions().assign(label=""), CLASSES, path) is None
    unscored = {"test": predictions().assign(dsc=np.nan), "external/ph2": predictions().drop(columns="dsc")}
    assert segmentation_box_plots(unscored, path) is None
    assert segmentation_sheet(predictions().assign(dsc=np.nan), load, path) is None
    assert not path.exists()


def test_sheet_shows_extremes_and_draws_both_outlines(tmp_path):
    image_ids = []

    def recording_load(image_id):
        image_ids.append(image_id)
        return load(image_id)

    path = segmentation_sheet(predictions(9), recording_load, tmp_path / "sheet.png", count=2)
    assert image_ids == ["im8", "im7", "im5", "im4", "im1", "im0"]
    picture = pixels(path).astype(int)
    for colour in (TRUE_CONTOUR, PREDICTED_CONTOUR):
        rgb = np.array(matplotlib.colors.to_rgb(colour)) * 255
        assert (np.abs(picture - rgb).max(axis=2) < 40).sum() > 100


def test_small_tables_draw_no_image_twice(tmp_path):
    for count in (1, 2, 3, 7):
        names = []
        segmentation_sheet(
            predictions(count), lambda name, names=names: names.append(name) or load(name), tmp_path / "sheet.png", count=4
        )
        assert len(names) == len(set(names))
        assert len(names) >= min(count, 3)


def test_failure_leaves_no_file(tmp_path):
    def broken(image_id):
        raise OSError("unreadable")

    with pytest.raises(OSError, match="unreadable"):
        segmentation_sheet(predictions(), broken, tmp_path / "sheet.png")
    assert list(tmp_path.iterdir()) == []


def test_style_does_not_leak(tmp_path):
    before = dict(matplotlib.rcParams)
    DRAWINGS["counts"](tmp_path / "counts.png")
    assert dict(matplotlib.rcParams) == before


def test_hostile_names_are_drawn_as_they_are(tmp_path):
    classes = ("a$^{b", r"c\frac")
    confusion_matrix(np.eye(2, dtype=int), classes, tmp_path / "figure.png", title="$x_{")
    class_counts(pd.DataFrame({"$training": [1, 2]}, index=classes), tmp_path / "figure.png")
