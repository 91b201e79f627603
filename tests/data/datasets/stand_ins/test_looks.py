"""The looks of the diagnoses: drawn from the seed alone, with overlap, and several photographs of one lesion."""

import cv2
import numpy as np
import pytest

from keras_skin.data.datasets.stand_ins.looks import _LOOKS, _SAME_LOOK, draw_all, draw_diagnosis, photograph

SIZE = (48, 64)


@pytest.mark.parametrize("diagnosis", [*_LOOKS, *_SAME_LOOK])
def test_image_and_mask(diagnosis):
    image, mask = draw_diagnosis(np.random.default_rng(1), diagnosis, SIZE)
    assert (image.shape, image.dtype) == ((*SIZE, 3), np.uint8)
    assert (mask.shape, mask.dtype) == (SIZE, bool)
    assert 0.02 < mask.mean() < 0.6
    again, same = draw_diagnosis(np.random.default_rng(1), diagnosis, SIZE)
    assert np.array_equal(image, again)
    assert np.array_equal(mask, same)


def test_one_lesion_of_any_data_set_is_the_same_picture():
    first, _ = photograph(3, "HAM_0000001", 0, "AKIEC", SIZE)
    assert np.array_equal(first, photograph(3, "HAM_0000001", 0, "AK", SIZE)[0])
    assert not np.array_equal(first, photograph(4, "HAM_0000001", 0, "AK", SIZE)[0])
    assert not np.array_equal(first, photograph(3, "HAM_0000002", 0, "AK", SIZE)[0])


def test_photographs_of_one_lesion_are_alike_but_not_equal():
    """What leaks where a lesion lies on both sides of a split: its photographs are far more alike than other lesions."""

    def distance(one, other):
        return np.abs(cv2.resize(one, (9, 8)).astype(float) - cv2.resize(other, (9, 8))).mean()

    pairs = [(photograph(0, str(key), 0, "NV", SIZE)[0], photograph(0, str(key), 1, "NV", SIZE)[0]) for key in range(12)]
    same = [distance(one, other) for one, other in pairs]
    different = [distance(one, pairs[key - 1][1]) for key, (one, _) in enumerate(pairs)]
    assert min(same) > 0
    assert np.median(same) < np.median(different) / 2


def test_classes_can_be_told_apart_but_vary():
    """Vascular lesions are redder than naevi, and one vascular lesion differs more from another than from a naevus."""
    redness = {}
    for diagnosis in ("NV", "VASC"):
        photographs = [photograph(0, f"{diagnosis}{key}", 0, diagnosis, SIZE) for key in range(25)]
        redness[diagnosis] = [float((image[mask, 0].astype(float) - image[mask, 1]).mean()) for image, mask in photographs]
    assert np.mean(redness["VASC"]) > np.mean(redness["NV"]) + 10
    assert np.ptp(redness["VASC"]) > min(redness["VASC"]) - max(redness["NV"])


def test_files(tmp_path):
    files, masks = ["x/1.jpg", "x/2.png", "y/3.png"], ["m/1.png", "m/2.png", "m/3.png"]
    draw_all(0, ["a", "b", "a"], ["NV", "MEL", "NV"], SIZE, tmp_path, files, masks)
    second = cv2.imread(str(tmp_path / "y/3.png"))[..., ::-1]
    image, mask = photograph(0, "a", 1, "NV", SIZE)
    assert np.array_equal(second, image)
    assert np.array_equal(cv2.imread(str(tmp_path / "m/3.png"), 0) > 0, mask)
    assert (tmp_path / "x/1.jpg").read_bytes()[:2] == b"\xff\xd8"
