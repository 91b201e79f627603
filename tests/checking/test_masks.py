"""Measures of masks against shapes whose faults are known."""

import cv2
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from keras_skin.checking.masks import measure
from keras_skin.data.images.decode import decode_mask
from keras_skin.data.images.files import decode_levels, read_header

SHAPE = (450, 600)


def ellipse(radius=120, aspect=1.5, angle=20, shape=SHAPE):
    mask = np.zeros(shape, np.uint8)
    cv2.ellipse(mask, (shape[1] // 2, shape[0] // 2), (radius, int(radius / aspect)), angle, 0, 360, 255, -1)
    return mask


def polygon(corners=10, radius=150, shape=SHAPE):
    angles = np.arange(corners) * 2 * np.pi / corners + np.random.default_rng(corners).uniform(-0.15, 0.15, corners)
    points = np.column_stack([shape[1] / 2 + radius * np.cos(angles), shape[0] / 2 + radius * np.sin(angles)])
    return cv2.fillPoly(np.zeros(shape, np.uint8), [points.round().astype(np.int32)], 255)


def measured(levels):
    """A mask whose file stores these levels, read as training does."""
    _, contents = cv2.imencode(".png", levels)
    return measure(*decode_levels(contents.tobytes(), read_header(contents.tobytes()))[::-1])


def faults(mask):
    return measured(mask).faults


@settings(max_examples=60, deadline=None)
@given(st.integers(30, 200), st.floats(1, 2.5), st.integers(0, 179))
def test_smooth_outlines_have_no_fault(radius, aspect, angle):
    assert faults(ellipse(radius, aspect, angle)) == set()


def test_a_ragged_outline_has_no_fault():
    noise = cv2.GaussianBlur(np.random.default_rng(0).normal(size=SHAPE), (0, 0), 6)
    mask = ((cv2.GaussianBlur(ellipse().astype(float), (0, 0), 20) / 255 + 1.5 * noise) > 0.5).astype(np.uint8) * 255
    assert "polygon" not in faults(mask)
    assert "blocky" not in faults(mask)


@pytest.mark.parametrize("corners", [5, 8, 10, 12])
def test_polygons_of_few_sides_are_coarse(corners):
    assert faults(polygon(corners)) == {"polygon"}
    assert measured(polygon(corners)).sides == pytest.approx(corners, abs=2)


@pytest.mark.parametrize("scale", [0.5, 0.8])
def test_the_verdict_does_not_hang_on_the_size_of_the_file(scale):
    for mask, expected in ((polygon(9), {"polygon"}), (ellipse(), set())):
        assert faults(cv2.resize(mask, None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST)) == expected


def test_straight_edges_along_the_border_of_the_image_are_not_held_against_a_mask():
    cut = ellipse(200, 1, 0, (900, 1200))[320:700, 450:750]  # a lesion that the picture cuts off on three sides
    assert faults(np.ascontiguousarray(cut)) == set()
    assert "polygon" not in faults(np.ascontiguousarray(ellipse(200, 1.4, 0)[:, :300]))


@pytest.mark.parametrize("block", [4, 8, 15])
def test_masks_enlarged_from_few_pixels_are_coarse(block):
    small = cv2.resize(ellipse(), None, fx=1 / block, fy=1 / block, interpolation=cv2.INTER_NEAREST)
    large = cv2.resize(small, (600, 450), interpolation=cv2.INTER_NEAREST)
    assert faults(large) == {"blocky"}
    assert faults(cv2.resize(ellipse(), None, fx=1 / block, fy=1 / block, interpolation=cv2.INTER_NEAREST)) <= {"polygon"}


def test_empty_full_and_full_frame():
    assert faults(np.zeros(SHAPE, np.uint8)) == {"empty"}
    assert faults(np.full(SHAPE, 255, np.uint8)) == {"full"}
    cv2.ellipse(framed := np.zeros(SHAPE, np.uint8), (300, 225), (299, 224), 0, 0, 360, 255, -1)
    assert "full_frame" in faults(framed)
    assert "full_frame" not in faults(ellipse(190, 1))


def test_pieces_specks_and_holes_are_those_of_scipy():
    mask = ellipse()
    cv2.circle(mask, (300, 225), 12, 0, -1)
    cv2.circle(mask, (40, 40), 30, 255, -1)
    cv2.circle(mask, (560, 400), 3, 255, -1)
    mask[0:2, 300:303] = 255
    facts = measured(mask)
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    sizes = ndimage.sum_labels(mask > 0, labels, range(1, count + 1))
    assert facts.specks == (sizes < 0.02 * sizes.max()).sum() == 2
    assert facts.pieces == count - facts.specks == 2
    assert facts.holes == ndimage.label(ndimage.binary_fill_holes(mask) & (mask == 0))[1] == 1


def test_grey_levels_between_are_counted():
    mask = ellipse()
    assert (measured(mask).values, measured(mask).grey) == (2, 0)
    mask[:3] = 77
    facts = measured(mask)
    assert facts.values == 3
    assert facts.grey == pytest.approx(3 / 450)


@pytest.mark.parametrize(
    ("pixels", "from_bmp", "expected"),
    [
        (np.array([[0, 127, 128, 255]], np.uint8), False, [0, 0, 1, 1]),
        (np.array([[0, 1, 1, 0]], np.uint8), False, [0, 1, 1, 0]),
        (np.array([[0, 1, 2, 0]], np.uint8), True, [0, 1, 1, 0]),
        (np.array([[0, 65535, 300, 40000]], np.uint16), False, [0, 1, 0, 1]),
        (np.array([[[0, 0, 200], [0, 0, 0]]], np.uint8), False, [1, 0]),
    ],
)
def test_the_threshold_is_that_of_training(pixels, from_bmp, expected):
    contents = cv2.imencode(".bmp" if from_bmp else ".png", pixels)[1].tobytes()
    levels, mask = decode_levels(contents, read_header(contents))
    assert mask[0].tolist() == decode_mask(tf.constant(contents)).numpy()[0, :, 0].tolist() == expected
    assert levels.dtype == np.uint8


def test_real_masks_are_sorted_as_a_person_sorts_them(real_data):
    """Looked at one by one: hand-drawn polygons, lesions that fill the frame, and computed outlines."""
    folder = real_data / "isic2016" / "ISBI2016_ISIC_Part1_Training_GroundTruth"

    def verdict(number):
        return faults(cv2.imread(str(folder / f"ISIC_{number:07d}_Segmentation.png"), cv2.IMREAD_UNCHANGED))

    for number in (1105, 10060, 10237, 77, 10327, 436):
        assert verdict(number) == {"polygon"}, number
    for number in (203, 303, 9995, 11121):
        assert "full_frame" in verdict(number), number
    for number in (415, 485, 103, 130, 301, 59, 365, 382, 7475, 326):
        assert "polygon" not in verdict(number), number
