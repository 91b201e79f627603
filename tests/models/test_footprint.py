"""The sizes of a network that can be counted by hand."""

import keras
import pytest

from keras_skin.models.footprint import footprint


def test_counted_by_hand():
    image = keras.Input((4, 4, 3), name="image")
    x = keras.layers.ReLU()(keras.layers.Conv2D(2, 3, padding="same")(image))
    x = keras.layers.GlobalAveragePooling2D()(x)
    shared = keras.layers.Dense(2)
    model = keras.Model(image, shared(shared(x)))
    weights, convolution, dense = 3 * 3 * 3 * 2 + 2 + 2 * 2 + 2, 4 * 4 * 2, 2 + 2
    model(keras.Input((4, 4, 3)))  # another call of the whole model adds nothing
    sizes = footprint(model)
    assert sizes["parameters"] == weights
    in_megabytes = {
        "weights": weights,
        "outputs of all layers": convolution + convolution + 2 + dense,
        "outputs of layers with weights": convolution + dense,
        "weights + outputs of layers with weights": weights + convolution + dense,
        "torchinfo": 4 * 4 * 3 + weights + 2 * (convolution + dense),
    }
    for name, numbers in in_megabytes.items():
        assert sizes[name] == pytest.approx(numbers * 4 / 1e6), name
