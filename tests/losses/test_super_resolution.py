"""The super-resolution loss against NumPy, and which way its gradient flows."""

import keras
import numpy as np
from keras import ops

from keras_skin.losses.super_resolution import SuperResolution


def test_mean_squared_error_of_each_image() -> None:
    pairs = np.random.default_rng(0).uniform(size=(3, 2, 4, 6, 3)).astype("float32")
    expected = [np.mean((pair[0] - pair[1]) ** 2) for pair in pairs]
    result = ops.convert_to_numpy(SuperResolution(reduction=None)(np.zeros((3, 1)), pairs))
    np.testing.assert_allclose(result, expected, rtol=1e-6)


def test_no_gradient_flows_into_the_target() -> None:
    """Each side of the pair is a bias of its own, on nothing; a step moves the prediction's alone, towards the target."""
    images = keras.Input((2, 4, 4, 3))
    sides = keras.layers.EinsumDense("bshwc,sc->bshwc", (2, 4, 4, 3), bias_axes="s", bias_initializer="ones")
    model = keras.Model(images, sides(images))
    sides.set_weights([np.zeros((2, 3)), np.array([0.0, 1.0]).reshape(sides.bias.shape)])
    model.compile(keras.optimizers.SGD(0.25), loss=SuperResolution())
    model.train_on_batch(np.zeros((2, 2, 4, 4, 3), "float32"), np.zeros((2, 1), "float32"))
    np.testing.assert_allclose(np.ravel(sides.get_weights()[1]), [0.5, 1.0], rtol=1e-6)
