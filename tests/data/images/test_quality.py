"""Sharp, blurred and dark pictures."""

import cv2
import numpy as np
import pytest

from keras_skin.data.images.load import load_image
from keras_skin.data.images.quality import quality_problems


def skin(height=300, width=400):
    rng = np.random.default_rng(0)
    coarse = rng.uniform(120, 220, (60, 80, 3)).astype(np.float32)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)


@pytest.mark.parametrize("size", [(60, 80), (300, 400), (1500, 2000)])
def test_a_picture_is_judged_whatever_its_size(size):
    image = skin(*size)
    assert quality_problems(image) == []
    assert quality_problems(cv2.GaussianBlur(image, (0, 0), size[1] / 20)) == ["blurred"]
    assert quality_problems(image * 0.25) == ["too dark"]
    assert quality_problems(np.zeros((*size, 3))) == ["blurred", "too dark"]


def test_real_images_are_good_and_blurred_ones_are_not(real_data):
    files = sorted((real_data / "isic2016").rglob("*.jpg"))[::40]
    blurred = 0
    for file in files:
        image = load_image(str(file)).numpy()
        assert quality_problems(image) == []
        blurred += quality_problems(cv2.GaussianBlur(image, (0, 0), max(image.shape) / 85)) == ["blurred"]
    assert blurred == len(files) > 10
