"""Measures of maps against loops, scikit-learn and SciPy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import entropy as scipy_entropy
from scipy.stats import spearmanr
from sklearn.metrics import jaccard_score

from keras_skin.explain import measures

MASK = np.zeros((6, 8), bool)
MASK[1:4, 2:6] = True


def random_maps(count=4):
    return np.random.default_rng(0).random((count, 6, 8))


def test_relevance_inside_is_the_share_of_the_sum():
    maps = random_maps()
    maps[1] = 0
    expected = [sum(m[i, j] for i in range(6) for j in range(8) if MASK[i, j]) / m.sum() if m.any() else np.nan for m in maps]
    np.testing.assert_allclose(measures.relevance_inside(maps, np.stack([MASK] * 4)), expected)
    assert np.isnan(measures.relevance_inside(maps[:1], np.zeros((1, 6, 8), bool))).all()
    assert measures.relevance_inside(MASK[None] * 1.0, MASK[None])[0] == 1


def test_pointing_game_looks_at_the_strongest_point():
    maps = np.zeros((4, 6, 8))
    maps[0, 2, 3] = 1
    maps[1, 5, 7] = 1
    maps[2, 2, 3] = maps[2, 0, 0] = 1
    np.testing.assert_allclose(measures.pointing_game(maps, np.stack([MASK] * 4)), [1, 0, 0.5, np.nan])


def test_thresholded_iou_equals_scikit_learn():
    maps = random_maps()
    expected = [jaccard_score(MASK.ravel(), (m >= 0.5 * m.max()).ravel()) for m in maps]
    np.testing.assert_allclose(measures.thresholded_iou(maps, np.stack([MASK] * 4)), expected)
    assert np.isnan(measures.thresholded_iou(np.zeros((1, 6, 8)), MASK[None])).all()


def test_entropy_goes_from_a_point_to_a_uniform_map():
    point = np.zeros((6, 8))
    point[3, 3] = 5
    maps = np.stack([point, np.ones((6, 8)), random_maps()[0], np.zeros((6, 8))])
    expected = [0, 1, scipy_entropy(maps[2].ravel()) / np.log(48), np.nan]
    np.testing.assert_allclose(measures.entropy(maps), expected, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(arrays(np.float64, (2, 3, 4), elements=st.integers(0, 5).map(float)))
def test_rank_correlation_equals_scipy(pair):
    correlation = measures.rank_correlation(pair[:1], pair[1:])[0]
    if np.ptp(pair[0]) == 0 or np.ptp(pair[1]) == 0:
        assert correlation == 0
    else:
        assert correlation == pytest.approx(spearmanr(pair[0].ravel(), pair[1].ravel()).statistic, abs=1e-12)


def test_gaussian_is_centred_for_any_shape():
    blob = measures.centred_gaussian((5, 9))
    assert blob.shape == (5, 9)
    assert np.unravel_index(blob.argmax(), blob.shape) == (2, 4)
    np.testing.assert_allclose(blob, blob[::-1, ::-1], rtol=1e-6)
    assert blob[0, 4] == pytest.approx(np.exp(-0.5 * (2 / (5 / 6)) ** 2))


def test_pixels_follow_the_map_and_ties_are_in_random_order():
    heat = np.zeros((20, 30))
    heat[10, 10], heat[3, 4] = 2, 1
    ranks = measures.removal_order(heat, np.random.default_rng(0))
    assert sorted(ranks.ravel()) == list(range(600))
    assert ranks[10, 10] == 0
    assert ranks[3, 4] == 1
    first = np.argwhere(ranks < 100)
    assert 6 < first[:, 0].mean() < 13  # not the upper rows


def test_deletion_and_insertion_use_the_same_pixels():
    image = np.random.default_rng(1).uniform(0, 255, (6, 8, 3)).astype(np.float32)
    ranks = measures.removal_order(image[..., 0], np.random.default_rng(0))
    fractions = np.array([0.0, 0.25, 1.0])
    gone, back = (measures.without_pixels(image, ranks, fractions, keep) for keep in (False, True))
    mean = image.reshape(-1, 3).mean(axis=0)
    np.testing.assert_allclose(gone + back, np.broadcast_to(image + mean, gone.shape), rtol=1e-5)
    np.testing.assert_array_equal(gone[0], image)
    np.testing.assert_array_equal(back[2], image)
    assert (gone[1] != image).any(axis=-1).sum() == 12
    assert image[..., 0][(gone[1] != image).any(axis=-1)].min() >= image[..., 0][(gone[1] == image).all(axis=-1)].max()
