"""Class-specific masks: exact arrays, and the files of a callback."""

import cv2
import numpy as np
import pytest

from keras_skin.explain.class_specific import class_masks, write_class_masks
from keras_skin.explain.map_files import MapWriter
from keras_skin.explain.samples import ExplainSample

LESION = np.array([[[0, 1, 1, 0], [0, 1, 1, 1]]], bool)
MAPS = np.array([[[[9, 4, 5, 0], [0, 0, 10, 2]], [[0, 1, 1, 0], [0, 0, 1, 1]], [[0, 0, 0, 0], [0, 0, 0, 0]]]], np.float32)


def test_the_predicted_class_has_the_mask_and_others_its_part_with_evidence():
    masks = class_masks(LESION, MAPS, np.array([1]))
    assert masks.dtype == bool
    assert masks.shape == (1, 3, 2, 4)
    np.testing.assert_array_equal(masks[0, 1], LESION[0])
    np.testing.assert_array_equal(masks[0, 0], [[0, 0, 1, 0], [0, 0, 1, 0]])  # 9 lies outside the lesion, 4 is below half of 10
    assert not masks[0, 2].any()
    np.testing.assert_array_equal(class_masks(LESION, MAPS, np.array([0]))[0, 1], [[0, 1, 1, 0], [0, 0, 1, 1]])


def test_the_threshold_is_a_share_of_the_maximum():
    strict = class_masks(LESION, MAPS, np.array([1]), threshold=0.95)
    np.testing.assert_array_equal(strict[0, 0], [[0, 0, 0, 0], [0, 0, 1, 0]])


def test_every_image_has_its_own_prediction_and_maps_are_enlarged():
    lesions = np.ones((2, 4, 4), bool)
    lesions[1] = False
    maps = np.zeros((2, 2, 2, 2), np.float32)
    maps[:, 1, 0, 0] = 1.0
    masks = class_masks(lesions, maps, np.array([0, 1]))
    assert masks[0, 0].all()
    np.testing.assert_array_equal(masks[0, 1], np.pad(np.ones((2, 2), bool), (0, 2)) & ~np.eye(4, dtype=bool)[::-1])
    assert not masks[1].any()


@pytest.fixture
def writer(tmp_path):
    generator = np.random.default_rng(0)
    samples = [
        ExplainSample(name, {"image": generator.uniform(0, 255, (8, 12, 3)).astype("float32")}, label, np.ones((8, 12)))
        for name, label in (("a", 1), ("b", 0), ("c", 1))
    ]
    label = np.array([[0.7, 0.3], [0.8, 0.2], [0.1, 0.9]], np.float32)
    return MapWriter(
        tmp_path, ["a", "b", "c"], samples, ("benign", "mal/ignant"), {"label": label, "mask": np.ones((3, 8, 12, 1))}
    )


def test_files_hold_the_masks_and_the_sheet_one_image_of_each_class(tmp_path, writer):
    masks = np.zeros((3, 2, 8, 12), bool)
    masks[:, 0, 2:6, 3:9] = True
    sheet = write_class_masks(writer, masks)
    assert sheet.path == tmp_path / "sheet_class_masks.png"
    assert writer.one_of_each_class() == [1, 2]  # a is wrong, so c stands for its class
    for name in "abc":
        written = cv2.imread(str(tmp_path / name / "class_mask_benign.png"), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(written, 255 * masks[0, 0])
        assert not cv2.imread(str(tmp_path / name / "class_mask_mal_ignant.png")).any()
        assert (tmp_path / name / "class_mask_mal_ignant_overlay.png").is_file()
    assert cv2.imread(str(sheet.path)).shape[1] == 3 * 210 + 10


def test_samples_without_a_true_class_are_all_shown(writer):
    unlabelled = [sample._replace(label=None) for sample in writer.samples]
    other = MapWriter(writer.folder, writer.names, unlabelled, writer.classes, writer.predictions)
    assert other.one_of_each_class() == [0, 1, 2]
