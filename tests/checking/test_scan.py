"""One pass over the files: what it measures, and what it says of bad ones."""

import cv2
import numpy as np
import pytest

from keras_skin.checking.scan import scan
from keras_skin.data.datasets.records import check_files, read_dataset
from keras_skin.data.splits.fingerprints import fingerprints


@pytest.fixture
def records(scratch):
    return read_dataset("isic2016", scratch, check_images=False)


def test_every_file_is_known_by_the_same_fingerprint_as_elsewhere(records):
    table, prints = scan(records.table["image"], records.table["mask"]), fingerprints(records.table["image"])
    assert table["sha256"].tolist() == prints["sha256"].tolist()
    differ = np.bitwise_count(table["phash"].to_numpy() ^ prints["phash"].to_numpy())
    assert differ.max() <= 2
    assert np.allclose(table["detail"], prints["detail"], atol=0.5)


def test_sizes_corners_and_borders_are_those_of_the_pixels(tmp_path):
    image = np.full((200, 320, 3), (200, 150, 100), np.uint8)  # BGR
    image[:60, :60] = 0
    image[10:-10, 100:-10] = 255
    path = str(tmp_path / "image.png")
    cv2.imwrite(path, image)
    row = scan([path], [""]).iloc[0]
    assert (row["width"], row["height"], row["format"]) == (320, 200, "PNG")
    assert row["file_bytes"] == (tmp_path / "image.png").stat().st_size
    assert row["dark_corners"] == pytest.approx(0.25)
    ring = np.ones((200, 320), bool)
    ring[6:-6, 6:-6] = False  # 1/32 of 200
    for column, channel in (("border_blue", 0), ("border_green", 1), ("border_red", 2)):
        assert row[column] == pytest.approx(image[..., channel][ring].mean())
    assert np.isnan(row["mask_area"])
    assert not row["mask_full"]


def test_bad_files_are_those_of_the_plain_check_with_the_same_reasons(records, scratch):
    images = scratch / "isic2016" / "ISBI2016_ISIC_Part1_Training_Data"
    masks = scratch / "isic2016" / "ISBI2016_ISIC_Part1_Training_GroundTruth"
    data = (images / "ISIC_0000000.jpg").read_bytes()
    (images / "ISIC_0000000.jpg").write_bytes(data[: len(data) // 2])
    (images / "ISIC_0000001.jpg").write_bytes(b"")
    cv2.imwrite(str(images / "ISIC_0000002.jpg"), np.zeros((96, 128), np.uint8))
    cv2.imwrite(str(masks / "ISIC_0000003_Segmentation.png"), np.zeros((40, 40), np.uint8))
    (masks / "ISIC_0000004_Segmentation.png").write_bytes(b"text")
    table = scan(records.table["image"], records.table["mask"])
    problems = {
        image_id: "; ".join(text for text in (image, mask) if text)
        for image_id, image, mask in zip(records.table["image_id"], table["image_problem"], table["mask_problem"], strict=True)
        if image or mask
    }
    assert problems == dict(check_files(records).excluded[["image_id", "reason"]].itertuples(index=False, name=None))
    assert len(problems) == 5


def test_progress_reaches_the_end(records):
    calls = []
    scan(records.table["image"], records.table["mask"], lambda done, total: calls.append((done, total)))
    assert calls == [(index, 32) for index in range(1, 33)]
