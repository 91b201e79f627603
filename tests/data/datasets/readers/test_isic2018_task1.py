"""ISIC 2018 task 1: three parts of images and masks, no labels."""

import shutil

import cv2
import pandas as pd
import pytest

from keras_skin.data.datasets import readers
from keras_skin.data.datasets.records import read_dataset


def read(folder):
    return read_dataset("isic2018_task1", None, str(folder), check_images=False)


def test_parts(stand_in):
    records = read(stand_in("isic2018_task1"))
    assert records.table["split"].value_counts().to_dict() == {"train": 16, "test": 6, "validation": 4}
    assert records.classes == ()
    assert (records.table["label"] == "").all()
    assert "There are no lesion ids: each image is a group of its own." in records.notes


def test_masks_differ_from_image_to_image(stand_in):
    masks = [cv2.imread(file, 0).tobytes() for file in read(stand_in("isic2018_task1")).table["mask"]]
    assert len(set(masks)) == len(masks)


def test_images_without_masks_and_masks_without_images(copy_of):
    folder = copy_of("isic2018_task1")
    masks = folder / "ISIC2018_Task1_Training_GroundTruth"
    (masks / "ISIC_0000002_segmentation.png").rename(masks / "ISIC_0009999_segmentation.png")
    excluded = read(folder).excluded.set_index("image_id")
    assert excluded["reason"].to_dict() == {
        "ISIC_0000002": "no mask: ISIC_0000002_segmentation.png is not in ISIC2018_Task1_Training_GroundTruth",
        "ISIC_0009999": "a mask without an image",
    }
    assert set(excluded["split"]) == {"train"}


def test_an_image_of_two_parts_counts_once(copy_of):
    folder = copy_of("isic2018_task1")
    for kind, file in (("1-2_{}_Input", "ISIC_0000002.jpg"), ("1_{}_GroundTruth", "ISIC_0000002_segmentation.png")):
        shutil.copy(folder / f"ISIC2018_Task{kind.format('Training')}" / file, folder / f"ISIC2018_Task{kind.format('Test')}")
    records = read(folder)
    assert records.excluded[["image_id", "reason", "split"]].to_numpy().tolist() == [
        ["ISIC_0000002", "duplicate id: also in the train split, which is used", "test"]
    ]
    assert records.table.set_index("image_id")["split"]["ISIC_0000002"] == "train"


def test_missing_parts_and_masks_are_said(copy_of):
    folder = copy_of("isic2018_task1")
    shutil.rmtree(folder / "ISIC2018_Task1-2_Validation_Input")
    shutil.rmtree(folder / "ISIC2018_Task1_Test_GroundTruth")
    records = read(folder)
    assert "The validation split is missing." in records.notes
    assert "The test split has no masks (ISIC2018_Task1_Test_GroundTruth is missing)." in records.notes
    assert (records.table["mask"] == "").sum() == 6


def test_lesion_groupings_are_used(copy_of):
    folder = copy_of("isic2018_task1")
    (folder / "ISIC2018_Task3_Training_LesionGroupings.csv").write_text(
        "image,lesion_id,diagnosis_confirm_type\nISIC_0000001,HAM_1,histopathology\nISIC_0000002,HAM_1,histopathology\nISIC_9,HAM_2,x\n"
    )
    table = read(folder).table.set_index("image_id")
    assert table["group_id"].to_list()[:4] == ["ISIC_0000000", "HAM_1", "HAM_1", "ISIC_0000003"]
    assert "diagnosis_confirm_type" not in table


@pytest.mark.parametrize("split", ["train", "test"])
def test_drawing_from_a_table(tmp_path, split):
    table = pd.DataFrame({"image": ["ISIC_7", "ISIC_8"], "split": split})
    readers.get("isic2018_task1").info["render"](tmp_path / "new", 0, None, (32, 40), table=table)
    assert read(tmp_path / "new").table[["image_id", "split"]].to_numpy().tolist() == [["ISIC_7", split], ["ISIC_8", split]]
