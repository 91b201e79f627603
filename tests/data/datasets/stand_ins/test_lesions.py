"""Stand-in pictures: reproducible, exact, marked, and different by class."""

import cv2
import numpy as np
import pytest

from keras_skin.data.datasets.stand_ins import lesions
from keras_skin.data.datasets.stand_ins.lesions import draw_lesion


def draw(seed, malignant=0.0, size=(120, 160), **options):
    return draw_lesion(np.random.default_rng(seed), size, malignant, **options)


@pytest.mark.parametrize("size", [(32, 32), (48, 64), (64, 200), (300, 400)])
def test_image_and_mask(size):
    for seed in range(6):
        image, mask = draw(seed, seed % 2, size)
        assert (image.shape, image.dtype) == ((*size, 3), np.uint8)
        assert (mask.shape, mask.dtype) == (size, bool)
        assert 0.01 < mask.mean() < 0.6


def test_the_seed_decides():
    image, mask = draw(1, 1.0)
    again, mask_again = draw(1, 1.0)
    assert (image == again).all()
    assert (mask == mask_again).all()
    assert (draw(2, 1.0)[0] != image).any()


@pytest.mark.parametrize("malignant", [0.0, 1.0])
def test_the_mask_is_one_piece_without_holes_away_from_the_edge(malignant):
    for seed in range(10):
        mask = draw(seed, malignant)[1].astype(np.uint8)
        assert cv2.connectedComponents(mask)[0] == 2
        assert cv2.connectedComponents(1 - mask, connectivity=4)[0] == 2
        assert mask[1:-1, 1:-1].sum() == mask.sum()


def test_the_mask_is_where_the_pigment_is():
    for seed in range(10):
        image, mask = draw(seed, 0.0, artefacts=False)
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(float)
        near = cv2.dilate(mask.astype(np.uint8), np.ones((25, 25))) > 0
        outside = near & (cv2.dilate(mask.astype(np.uint8), np.ones((5, 5))) == 0)
        assert grey[mask].mean() < grey[outside].mean() - 8


def test_the_word_stands_outside_the_lesion():
    """Drawn with and without the word the pictures differ, and only outside the mask."""

    for seed in range(10):
        image, mask = draw(seed, 1.0)
        word, lesions.WORD = lesions.WORD, " " * len(lesions.WORD)
        try:
            blank = draw(seed, 1.0)[0]
        finally:
            lesions.WORD = word
        changed = (image != blank).any(axis=-1)
        assert changed.sum() > 50
        assert not (changed & mask).any()


def features(malignant, count=40):
    """Asymmetry, raggedness of the outline, and spread of the colours, by picture."""
    rows = []
    for seed in range(count):
        image, mask = draw([seed, int(malignant)], malignant, artefacts=False)
        outline = max(cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0], key=cv2.contourArea)
        area = mask.sum()
        y, x = np.argwhere(mask).mean(axis=0).round().astype(int)
        reach = min(y, x, mask.shape[0] - 1 - y, mask.shape[1] - 1 - x)
        window = mask[y - reach : y + reach + 1, x - reach : x + reach + 1]
        rows.append(
            (
                np.logical_xor(window, window[::-1, ::-1]).sum() / area,
                cv2.arcLength(outline, True) ** 2 / area,
                image[mask].astype(float).std(axis=0).mean(),
            )
        )
    return np.array(rows)


def test_classes_differ_by_asymmetry_border_and_colour_but_overlap():
    benign, malignant = features(0.0), features(1.0)
    for column in range(3):
        assert np.median(malignant[:, column]) > np.median(benign[:, column]) * 1.1
        assert benign[:, column].max() > np.quantile(malignant[:, column], 0.2)
