"""The super-resolution decoder's sizes, and its loss."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_skin.layers.super_resolution import SuperResolutionLoss, super_resolution_decoder


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


def test_loss_is_the_mean_squared_error_with_its_weight() -> None:
    generator = np.random.default_rng(0)
    predicted, target = generator.uniform(size=(2, 2, 4, 6, 3)).astype("float32")
    layer = SuperResolutionLoss(0.25)
    np.testing.assert_array_equal(ops.convert_to_numpy(layer([predicted, target])), predicted)
    np.testing.assert_allclose(float(ops.sum(layer.losses)), 0.25 * np.mean((predicted - target) ** 2), rtol=1e-6)


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="JAX's trainer forgets what layers count")
def test_error_is_logged_without_its_weight() -> None:
    images = keras.Input((4, 4, 3))
    model = keras.Model(images, SuperResolutionLoss(0.25)([images, 0 * images]))
    model.compile(keras.optimizers.SGD(0.1))
    logs = model.test_on_batch(np.full((2, 4, 4, 3), 2.0, "float32"), return_dict=True)
    assert logs["loss"] == pytest.approx(1.0)
    assert logs["super_resolution_loss"] == pytest.approx(4.0)
