"""Lesions that a segmenter cuts out: asked once, known by content, described and shown."""

import shutil

import cv2
import numpy as np
import pandas as pd
import pytest

from keras_skin.data.images.load import load_image
from keras_skin.workflow import lesions
from keras_skin.workflow.segmenter import open_segmenter


@pytest.fixture(scope="module")
def opened(tiny_run):
    return open_segmenter(tiny_run)


@pytest.fixture
def table(tiny_run):
    rows = pd.read_csv(tiny_run / "splits.csv", dtype=str).head(5)
    files = {file.stem: file for file in (tiny_run / "demo_data").rglob("*") if file.suffix in (".jpg", ".bmp")}
    rows["image"] = [str(files[image_id]) for image_id in rows["image_id"]]
    return rows.assign(mask="")


@pytest.mark.slow
def test_masks_are_predicted_once_and_known_by_content(opened, table, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_SKIN_CACHE", str(tmp_path / "cache"))
    masks = lesions.predicted_lesions(opened, table["image"].tolist(), tmp_path)
    size = opened.experiment.image_size
    for image, file in zip(table["image"], masks, strict=True):
        logits = opened.model({"image": load_image(image, size)[None]}, training=False)["mask"]
        np.testing.assert_array_equal(cv2.imread(file, cv2.IMREAD_UNCHANGED) == 255, np.asarray(logits)[0, ..., 0] > 0)
    copy = tmp_path / "copy_of_the_first.jpg"
    shutil.copyfile(table["image"][0], copy)
    monkeypatch.setattr(lesions, "lesion_masks", lambda model: pytest.fail("predicted a second time"))
    assert lesions.predicted_lesions(opened, [str(copy), *table["image"][1:]], tmp_path) == masks


def test_without_a_cache_masks_lie_in_the_run(opened, table, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("KERAS_SKIN_CACHE", str(tmp_path / "file"))
    (masks,) = lesions.predicted_lesions(opened, [table["image"][0]], tmp_path)
    assert masks.startswith(str(tmp_path / "lesions"))


def test_what_the_masks_are_like_is_told_and_shown(table, tmp_path):
    files = []
    for number in range(len(table)):
        mask = np.zeros((20, 20), np.uint8)
        mask[: 4 * number] = 255
        files.append(str(tmp_path / f"{number}.png"))
        cv2.imwrite(files[-1], mask)
    table = table.assign(lesion=files)
    table.loc[3, "mask"] = files[4]
    median, empty, overlap = lesions.describe_lesions(table)
    assert "40%" in median
    assert f"no lesion found in 1 images, whose segmented image is black: {table['image_id'][0]}." in empty
    assert "mean DSC 0.857 with the data set's own masks (1 images" in overlap
    sheet = cv2.imread(str(lesions.lesion_sheet(table, tmp_path / "sheet.png", (32, 64), synthetic=True)))
    assert sheet.shape[0] > 300
    assert sheet.std() > 10
