"""The figure of sample images: which are chosen, and what is drawn of them."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from keras_skin.figures.samples import choose_samples, samples_figure

CLASSES = ("benign", "malignant")


def rows(dataset, split, labels, mask="mask.png"):
    names = [f"{dataset}_{split}_{number}" for number in range(len(labels))]
    table = pd.DataFrame({"image_id": names, "dataset": dataset, "split": split, "label": labels, "mask": mask})
    return table.assign(image=table["image_id"])


@pytest.fixture
def table():
    return pd.concat(
        [
            rows("isic2016", "train", ["benign"] * 8 + ["malignant"]),
            rows("isic2016", "test", ["malignant"] * 3),
            rows("isic2017", "train", ["malignant"] * 3, mask=""),
            rows("ph2", "external/ph2", ["malignant", "benign", "benign", "benign"]),
        ],
        ignore_index=True,
    )


def test_each_data_set_and_class_has_training_images_or_measured_ones(table):
    samples = choose_samples(table, CLASSES)
    assert samples["image_id"].tolist() == [
        "isic2016_train_2",
        "isic2016_train_6",
        "isic2016_train_8",
        "ph2_external/ph2_1",
        "ph2_external/ph2_3",
        "ph2_external/ph2_0",
    ]


def test_images_without_a_label_come_last(table):
    samples = choose_samples(pd.concat([rows("isic2018", "train", ["", "malignant", ""]), table]), CLASSES, count=1)
    assert samples["label"].tolist()[:2] == ["malignant", ""]


def draw(samples, path, **mark):
    def load(image, mask):
        value = 200 if "isic2016" in image else 120
        outline = np.zeros((30, 40), bool)
        outline[8:20, 10:30] = True
        return np.full((30, 40, 3), value, np.uint8), outline

    return samples_figure(samples, load, path, **mark)


def test_images_masks_and_boundaries_are_drawn(table, tmp_path):
    with Image.open(draw(choose_samples(table, CLASSES), tmp_path / "samples.png")) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    for value in (200, 120, 255, 0):  # both images, the mask and its surroundings
        assert (np.abs(pixels - value).max(axis=2) < 3).sum() > 5000
    is_green = (pixels[..., 1] > 180) & (pixels[..., 0] < 90) & (pixels[..., 2] < 150)
    assert is_green.sum() > 1000
    assert draw(choose_samples(table, CLASSES), tmp_path / "marked.png", synthetic=True).stat().st_size > 0


def test_no_mask_no_figure(tmp_path):
    samples = choose_samples(rows("isic2017", "train", ["benign"], mask=""), CLASSES)
    assert draw(samples, tmp_path / "samples.png") is None
    assert not list(tmp_path.iterdir())
