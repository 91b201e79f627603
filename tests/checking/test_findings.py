"""Every kind of fault of tables, files and masks is put into a data set once, and named."""

import cv2
import numpy as np
import pandas as pd
import pytest

from keras_skin.checking import findings
from keras_skin.checking.scan import scan
from keras_skin.data.datasets.records import read_dataset

IMAGES, MASKS = "ISBI2016_ISIC_Part1_Training_Data", "ISBI2016_ISIC_Part1_Training_GroundTruth"


@pytest.fixture
def folder(scratch):
    return scratch / "isic2016"


def by_title(results):
    return {(finding.severity, finding.title): [item.name for item in finding.items] for finding in results}


def test_rows_without_images_images_without_rows_and_masks_that_are_missing(folder, scratch):
    for number in (3, 4):
        (folder / IMAGES / f"ISIC_{number:07d}.jpg").unlink()
    (folder / MASKS / "ISIC_0000005_Segmentation.png").unlink()
    (folder / IMAGES / "ISIC_0000006.jpg").rename(folder / IMAGES / "ISIC_0009999.jpg")
    table = folder / "ISBI2016_ISIC_Part3_Training_GroundTruth.csv"
    table.write_text(table.read_text() + "ISIC_0000007,malignant\nISIC_0000008,benign\n")
    records = read_dataset("isic2016", scratch, check_images=False)
    assert by_title(findings.in_tables(records, "the archive")) == {
        ("error", "3 rows without an image in the train split: 19 of 22 images are here."): [
            "ISIC_0000003",
            "ISIC_0000004",
            "ISIC_0000006",
        ],
        ("error", "1 id with different labels."): ["ISIC_0000007"],
        ("warning", "1 id a second time."): ["ISIC_0000008"],
        ("warning", "1 image that the table does not name."): ["ISIC_0009999"],
        ("warning", "1 image without a mask, though others have one."): ["ISIC_0000005"],
    }


def test_a_part_without_any_image_is_a_warning_and_what_was_published_so_is_no_fault(folder, scratch):
    for file in (folder / "ISBI2016_ISIC_Part1_Test_Data").iterdir():
        file.unlink()
    (folder / IMAGES / "ISIC_0000003.jpg").unlink()
    results = by_title(findings.in_tables(read_dataset("isic2016", scratch, check_images=False), "", ["ISIC_0000003"]))
    assert [key[0] for key in results] == ["info", "warning"]
    assert "ISIC_0000003: published without an image." in str(results)
    assert "The test split has no images here: its table names 8 images." in str(results)


def test_bad_files_and_masks(folder, scratch):
    def spoil(number, change):
        path = folder / MASKS / f"ISIC_{number:07d}_Segmentation.png"
        cv2.imwrite(str(path), change(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)))

    (folder / IMAGES / "ISIC_0000000.jpg").write_bytes(b"\xff\xd8\xff")
    blank = folder / IMAGES / "ISIC_0000001.jpg"
    cv2.imwrite(str(blank), np.full_like(cv2.imread(str(blank)), 90))
    spoil(2, np.zeros_like)
    spoil(4, lambda mask: np.full_like(mask, 255))
    spoil(5, lambda mask: mask[:50])
    spoil(6, lambda mask: cv2.GaussianBlur(mask, (0, 0), 3))
    spoil(7, lambda mask: cv2.resize(mask[::8, ::8], mask.shape[::-1], interpolation=cv2.INTER_NEAREST))
    spoil(8, lambda mask: cv2.rectangle(mask, (0, 0), (3, 3), 255, -1))
    records = read_dataset("isic2016", scratch, check_images=False)
    table, scanned = records.table, scan(records.table["image"], records.table["mask"])
    files, masks = by_title(findings.in_files(table, scanned)), by_title(findings.in_masks(table, scanned))
    assert files[("error", "1 image that cannot be used.")] == ["ISIC_0000000"]
    assert files[("warning", "1 image of a single shade.")] == ["ISIC_0000001"]
    assert masks[("error", "1 mask without a single set pixel.")] == ["ISIC_0000002"]
    assert masks[("error", "1 mask of another size than the image.")] == ["ISIC_0000005"]
    assert masks[("warning", "1 mask is full: set all over the image.")] == ["ISIC_0000004"]
    assert masks[("warning", "1 mask is not binary.")] == ["ISIC_0000006"]
    assert masks[("warning", "1 mask is coarse: enlarged from a few pixels.")] == ["ISIC_0000007"]
    assert masks[("info", "1 mask with specks: pieces of less than 2% of the largest.")] == ["ISIC_0000008"]


def test_nothing_is_said_of_a_good_data_set(stand_ins):
    records = read_dataset("isic2016", stand_ins, check_images=False)
    scanned = scan(records.table["image"], records.table["mask"])
    results = [
        *findings.in_tables(records, ""),
        *findings.in_files(records.table, scanned),
        *findings.in_masks(records.table, scanned),
        *findings.in_labels(records.table),
    ]
    assert [finding for finding in results if finding.severity != "info"] == []


def test_no_masks_at_all_are_no_fault(stand_ins):
    table = read_dataset("isic2016", stand_ins, check_images=False).table.assign(mask="")
    assert findings.in_masks(table, scan(table["image"], table["mask"])) == []


def test_labels_and_groups_that_contradict_each_other():
    table = pd.DataFrame(
        [
            ("a", "g1", "l1", "MEL", "train"),
            ("b", "g1", "l1", "NV", "train"),
            ("c", "g1", "l2", "NV", "test"),
            ("d", "g2", "l1", "NV", "test"),
            ("e", "g2", "", "", "test"),
        ],
        columns=["image_id", "group_id", "lesion_id", "label", "split"],
    ).assign(image="", mask="")
    assert by_title(findings.in_labels(table)) == {
        ("error", "1 lesion or patient with images in two official splits."): ["g1"],
        ("warning", "1 lesion with different labels on different images."): ["l1"],
        ("warning", "1 image without a label."): ["e"],
    }
