"""The depthwise separable convolution against loops over positions."""

import keras
import numpy as np

from keras_skin.layers.depthwise_separable import separable_convolution


def test_against_numpy() -> None:
    x = np.random.default_rng(0).normal(size=(2, 4, 5, 3)).astype("float32")
    layer = separable_convolution(6)
    result = layer(x)
    depthwise, pointwise = layer.get_weights()
    assert depthwise.shape == (3, 3, 3, 1)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    expected = np.empty((2, 4, 5, 6), "float32")
    for row in range(4):
        for column in range(5):
            channels = (padded[:, row : row + 3, column : column + 3] * depthwise[..., 0]).sum((1, 2))
            expected[:, row, column] = channels @ pointwise[0, 0]
    np.testing.assert_allclose(keras.ops.convert_to_numpy(result), expected, atol=1e-5)


def test_depthwise_step_keeps_the_variance_of_many_channels() -> None:
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(1, 16, 16, 400)).astype("float32")
    layer = separable_convolution(400)
    layer.build(x.shape)
    layer.set_weights([layer.get_weights()[0], np.eye(400, dtype="float32")[None, None]])
    inside = keras.ops.convert_to_numpy(layer(x))[:, 1:-1, 1:-1]
    assert 0.9 < inside.std() < 1.1
