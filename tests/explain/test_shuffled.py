"""Shuffled weights: the same numbers in another order, and restored."""

import keras
import numpy as np
import pytest

from keras_skin.explain.shuffled import shuffled_weights


def test_weights_are_shuffled_and_restored_even_after_an_error():
    keras.utils.set_random_seed(0)
    image = keras.Input((4, 4, 3))
    x = keras.layers.BatchNormalization()(keras.layers.Dropout(0.5)(keras.layers.Conv2D(8, 3)(image)))
    model = keras.Model(image, keras.layers.Dense(2)(keras.layers.Flatten()(x)))
    before = [np.array(variable.value) for variable in model.variables]
    during = []

    def fail():
        with shuffled_weights(model, 3):
            during.extend(np.array(variable.value) for variable in model.variables)
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    for variable, first, second in zip(model.variables, before, during, strict=True):
        np.testing.assert_array_equal(np.sort(first.ravel()), np.sort(second.ravel()))
        np.testing.assert_array_equal(first, variable.value)
    kernel = max(range(len(before)), key=lambda index: before[index].size)
    assert (before[kernel] != during[kernel]).mean() > 0.9
