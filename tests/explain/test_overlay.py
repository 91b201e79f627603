"""Pictures: positions of what they show, and legible text and lines on small images."""

import cv2
import numpy as np
import pytest

from keras_skin.explain.overlay import PREDICTED_COLOUR, TRUE_COLOUR, contact_sheet, overlay, text_strip, write_png

GREY = np.full((60, 80, 3), 128, np.uint8)


def rectangle(top, left, bottom, right, size=(60, 80)):
    mask = np.zeros(size, np.float32)
    mask[top:bottom, left:right] = 1
    return mask


def pixels_of(picture, colour, tolerance=30):
    return np.argwhere(np.abs(picture.astype(int) - colour).max(axis=-1) <= tolerance)


def test_contours_lie_on_the_borders_of_their_masks():
    true_mask, predicted_mask = rectangle(10, 10, 50, 40), rectangle(20, 50, 40, 70, (60, 80))[..., None]
    picture = overlay(GREY, true_mask=true_mask, predicted_mask=predicted_mask, width=320)
    assert picture.shape == (240, 320, 3)
    green, magenta = pixels_of(picture, TRUE_COLOUR) / 4, pixels_of(picture, PREDICTED_COLOUR) / 4
    np.testing.assert_allclose([green.min(axis=0), green.max(axis=0)], [[10, 10], [50, 40]], atol=1.0)
    np.testing.assert_allclose([magenta.min(axis=0), magenta.max(axis=0)], [[20, 50], [40, 70]], atol=1.0)


def test_heat_tints_where_it_is_and_nowhere_else():
    heat = np.zeros((6, 8), np.float32)
    heat[:, 6:] = 1
    picture = overlay(GREY, heat, width=320)
    assert np.abs(picture[:, :200].astype(int) - 128).max() <= 1
    assert picture[:, 300:].min() > 180


def test_a_coloured_image_stays_coloured_only_without_heat():
    skin = np.broadcast_to(np.array([220, 170, 150], np.uint8), (60, 80, 3))
    assert (overlay(skin, width=80) == skin).all()
    assert np.ptp(overlay(skin, np.zeros((3, 4), np.float32), width=80), axis=-1).max() == 0


@pytest.mark.parametrize("size", [(24, 32), (300, 200), (1000, 1500)])
def test_size_of_the_picture_does_not_depend_on_that_of_the_image(size):
    picture = overlay(np.zeros((*size, 3)), rectangle(0, 0, 2, 2, (3, 4)), true_mask=rectangle(1, 1, 9, 9, size), width=240)
    assert picture.shape == (round(240 * size[0] / size[1]), 240, 3)
    assert picture.dtype == np.uint8


def test_empty_masks_draw_nothing():
    assert (overlay(GREY, true_mask=rectangle(0, 0, 0, 0), predicted_mask=rectangle(0, 0, 0, 0), width=80) == GREY).all()


def test_caption_remark_and_synthetic_mark_add_lines_and_cover_nothing():
    plain = overlay(GREY, width=320)
    marked = overlay(GREY, width=320, caption=["ISIC_0000000", "truth: benign"], remark="no positive evidence", synthetic=True)
    lines = marked.shape[0] - plain.shape[0]
    assert lines >= 4 * 15
    start = next(row for row in range(lines) if (marked[row : row + 240] == plain).all())
    above, below = marked[:start], marked[start + 240 :]
    assert (above.min(axis=-1) < 100).any()
    assert above[..., 0].astype(int).min() > 150  # red letters
    assert (below.max(axis=-1) < 60).any()  # dark letters


def test_long_lines_fit_into_the_strip():
    strip = text_strip(["a very long caption " * 12], 160)
    assert strip.shape[1] == 160
    assert (strip.min(axis=(0, 2))[:150] < 200).any()
    assert (strip[:, 158:] == 255).all()


def test_contact_sheet_holds_every_picture():
    pictures = [np.full((20 + 10 * i, 40, 3), 10 * i + 5, np.uint8) for i in range(5)]
    sheet = contact_sheet(pictures, columns=2, title=["a title"], synthetic=True)
    for picture in pictures:
        assert (sheet == picture[0, 0]).all(axis=-1).sum() >= picture[..., 0].size
    assert contact_sheet(pictures[:1], columns=4).shape[1] < 80
    with pytest.raises(ValueError, match="at least one"):
        contact_sheet([])


def test_png_keeps_the_colours():
    picture = np.zeros((4, 5, 3), np.uint8)
    picture[..., 0] = 200
    decoded = cv2.imdecode(np.frombuffer(write_png(picture), np.uint8), cv2.IMREAD_COLOR)
    assert (decoded == [0, 0, 200]).all()
