"""Scaling of every channel to its own range."""

import numpy as np
import pytest

from keras_skin.layers.min_max_scaling import MinMaxScaling


def test_every_channel_of_every_image_has_its_own_range() -> None:
    images = np.array([[[10, 50], [20, 100]], [[0, 0], [255, 4]]], "float32").reshape(2, 1, 2, 2)
    expected = np.array([[[0, 0], [1, 1]], [[0, 0], [1, 1]]], "float32").reshape(2, 1, 2, 2)
    np.testing.assert_allclose(MinMaxScaling()(images), expected)
    values = np.array([30.0, 80, 130, 230], "float32").reshape(1, 2, 2, 1)
    np.testing.assert_allclose(np.ravel(MinMaxScaling()(values)), [0, 0.25, 0.5, 1])


@pytest.mark.parametrize("value", [0.0, 17.0, 255.0])
def test_a_constant_channel_becomes_zero(value: float) -> None:
    images = np.full((1, 3, 4, 3), value, "float32")
    images[..., 1] = np.arange(12).reshape(3, 4)
    result = np.asarray(MinMaxScaling()(images))
    assert np.isfinite(result).all()
    assert result[..., [0, 2]].tolist() == np.zeros((1, 3, 4, 2)).tolist()
    assert result[..., 1].max() == 1
