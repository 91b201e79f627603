"""CBAM against the equations of its paper in NumPy."""

import numpy as np
import pytest

from keras_skin.layers.cbam import CBAM


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def test_against_numpy() -> None:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(2, 5, 4, 6)).astype("float32")
    layer = CBAM(hidden_units=3, kernel_size=3)
    layer(x)
    weights = {}
    for variable in layer.weights:
        values = generator.normal(size=variable.shape).astype("float32")
        variable.assign(values)
        weights[variable.path.split("/", 1)[1]] = values

    def perceptron(v: np.ndarray) -> np.ndarray:
        hidden = np.maximum(v @ weights["hidden/kernel"] + weights["hidden/bias"], 0)
        return hidden @ weights["channel_logits/kernel"] + weights["channel_logits/bias"]

    channels = sigmoid(perceptron(x.mean((1, 2))) + perceptron(x.max((1, 2))))
    weighted = x * channels[:, None, None, :]
    pooled = np.pad(np.stack([weighted.mean(-1), weighted.max(-1)], -1), ((0, 0), (1, 1), (1, 1), (0, 0)))
    expected = np.empty_like(x)
    for row in range(5):
        for column in range(4):
            window = pooled[:, row : row + 3, column : column + 3, :]
            attention = sigmoid((window * weights["spatial_logits/kernel"][..., 0]).sum((1, 2, 3)))
            expected[:, row, column] = weighted[:, row, column] * attention[:, None]
    np.testing.assert_allclose(layer(x), expected, atol=1e-5)


def test_worked_by_hand() -> None:
    layer = CBAM(hidden_units=1, kernel_size=1)
    layer.build((None, 2, 1, 1))
    layer.set_weights([np.ones((1, 1)), np.zeros(1), np.ones((1, 1)), np.zeros(1), np.zeros((1, 1, 2, 1))])
    # Average 2, maximum 3: channel attention sigmoid(5) = 0.99331; spatial attention sigmoid(0) = 0.5.
    x = np.array([1.0, 3.0], "float32").reshape(1, 2, 1, 1)
    np.testing.assert_allclose(np.ravel(layer(x)), [0.496654, 1.489961], atol=1e-5)


def test_parameters_of_the_joint_model() -> None:
    layer = CBAM(hidden_units=32)
    layer.build((None, 6, 8, 320))
    assert layer.count_params() == 320 * 32 + 32 + 32 * 320 + 320 + 7 * 7 * 2


def test_sizes_must_be_positive() -> None:
    with pytest.raises(ValueError, match="positive"):
        CBAM(hidden_units=0)
