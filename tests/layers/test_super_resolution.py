"""The super-resolution decoder: sizes and range."""

import keras
import numpy as np
import pytest

from keras_skin.layers.super_resolution import super_resolution_decoder


@pytest.mark.parametrize(
    ("positions", "size", "strides"), [((7, 7), (224, 224), 6), ((2, 1), (64, 32), 6), ((4, 2), (64, 32), 5)]
)
def test_six_layers_to_twice_the_size(positions: tuple, size: tuple, strides: int) -> None:
    features = keras.Input((*positions, 8))
    model = keras.Model(features, super_resolution_decoder(features, size))
    assert model.output.shape == (None, 2 * size[0], 2 * size[1], 3)
    layers = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2DTranspose)]
    assert len(layers) == 6
    assert sum(layer.strides == (2, 2) for layer in layers) == strides


def test_result_is_float32_in_the_unit_interval() -> None:
    x = keras.Input((1, 1, 4))
    model = keras.Model(x, super_resolution_decoder(x, (32, 32)))
    result = model.predict_on_batch(1000 * np.random.default_rng(0).normal(size=(2, 1, 1, 4)))
    assert result.dtype == np.float32
    assert (result >= 0).all()
    assert (result <= 1).all()


@pytest.mark.parametrize(("positions", "size"), [((7, 7), (225, 225)), ((7, 7), (224, 112)), ((1, 1), (64, 64))])
def test_sizes_that_no_doubling_reaches_are_refused(positions: tuple, size: tuple) -> None:
    with pytest.raises(ValueError, match="multiples of 32"):
        super_resolution_decoder(keras.Input((*positions, 8)), size)
