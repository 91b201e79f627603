"""One token per field, against one matrix product per field."""

import keras
import numpy as np
import pytest

from keras_skin.layers.field_tokens import FieldTokens


def test_against_numpy() -> None:
    generator = np.random.default_rng(0)
    layer = FieldTokens([1, 3], units=4)
    layer.build((None, 6))
    layer.set_weights([generator.normal(size=array.shape) for array in layer.get_weights()])
    (kernel_1, bias_1, kernel_2, bias_2) = layer.get_weights()
    rows = generator.normal(size=(5, 6)).astype("float32")
    expected = np.empty((5, 2, 4))
    for index, row in enumerate(rows):
        expected[index, 0] = np.array([row[0], row[4]]) @ kernel_1 + bias_1
        expected[index, 1] = np.array([row[1], row[2], row[3], row[5]]) @ kernel_2 + bias_2
    np.testing.assert_allclose(keras.ops.convert_to_numpy(layer(rows)), expected, atol=1e-5)


def test_sizes_must_be_positive() -> None:
    with pytest.raises(ValueError, match="positive"):
        FieldTokens([1, 0], units=4)
