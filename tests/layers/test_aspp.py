"""Atrous spatial pyramid pooling against loops over taps."""

import keras
import numpy as np
import pytest

from keras_skin.layers.aspp import atrous_spatial_pyramid


def network(shape: tuple[int, ...], features: int, **arguments: object) -> keras.Model:
    inputs = keras.Input(shape)
    return keras.Model(inputs, atrous_spatial_pyramid(inputs, features, **arguments))


def block(x: np.ndarray, model: keras.Model, name: str, dilation: int = 1) -> np.ndarray:
    """Convolution, normalisation and ReLU, tap by tap."""
    (kernel,) = model.get_layer(f"{name}_conv").get_weights()
    layer = model.get_layer(f"{name}_norm")
    gamma, beta, mean, variance = layer.get_weights()
    _, height, width, _ = x.shape
    reach = dilation * (kernel.shape[0] // 2)
    padded = np.pad(x, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
    y = np.zeros((*x.shape[:3], kernel.shape[-1]))
    for row, taps in enumerate(kernel):
        for column, tap in enumerate(taps):
            top, left = row * dilation, column * dilation
            y += padded[:, top : top + height, left : left + width] @ tap
    return np.maximum((y - mean) / np.sqrt(variance + layer.epsilon) * gamma + beta, 0)


def test_against_numpy() -> None:
    generator = np.random.default_rng(0)
    model, x = network((7, 6, 4), 5), generator.normal(size=(2, 7, 6, 4)).astype("float32")
    for weight in model.weights:
        values = generator.normal(size=weight.shape)
        weight.assign(np.abs(values) + 0.5 if "variance" in weight.path else values)
    branches = [block(x, model, "aspp_point"), *(block(x, model, f"aspp_dilation_{rate}", rate) for rate in (1, 2, 3))]
    assert not any(np.allclose(branch, branches[1]) for branch in branches[2:])
    expected = block(np.concatenate(branches, axis=-1), model, "aspp")
    np.testing.assert_allclose(model.predict_on_batch(x), expected, rtol=1e-4, atol=1e-4)


def test_parameters_at_the_end_of_efficientnet_b3() -> None:
    model = network((7, 7, 384), 256)
    assert model.output_shape == (None, 7, 7, 256)
    assert model.count_params() == 384 * 256 + 3 * 9 * 384 * 256 + 4 * 256 * 256 + 5 * 4 * 256


@pytest.mark.parametrize("dilations", [(), (0, 1), (2, 2)])
def test_dilations_must_be_positive_and_distinct(dilations: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="positive and distinct"):
        network((4, 4, 2), 3, dilations=dilations)
