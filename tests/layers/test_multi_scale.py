"""Multi-scale aggregation against loops over windows."""

import keras
import numpy as np
import pytest

from keras_skin.layers.multi_scale import multi_scale_aggregation


def clipped_mean(x: np.ndarray, window: int) -> np.ndarray:
    """Mean over the window's positions inside the map: (window - 1) // 2 before a position, window // 2 after it."""
    result = np.empty_like(x)
    for row in range(x.shape[1]):
        for column in range(x.shape[2]):
            rows = slice(max(0, row - (window - 1) // 2), row + window // 2 + 1)
            columns = slice(max(0, column - (window - 1) // 2), column + window // 2 + 1)
            result[:, row, column] = x[:, rows, columns].mean((1, 2))
    return result


def features(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def network(shape: tuple[int, ...], **arguments: object) -> keras.Model:
    inputs = keras.Input(shape)
    return keras.Model(inputs, multi_scale_aggregation(inputs, **arguments))


def pooled(model: keras.Model, x: np.ndarray) -> np.ndarray:
    return keras.Model(model.input, model.get_layer("multi_scale_scales").output).predict_on_batch(x)


@pytest.mark.parametrize("shape", [(7, 7), (2, 2), (5, 20), (1, 3)])
def test_windows_are_clipped_at_the_border(shape: tuple[int, int]) -> None:
    x = features(2, *shape, 3)
    expected = np.concatenate([clipped_mean(x, window) for window in (4, 8, 16)], axis=-1)
    np.testing.assert_allclose(pooled(network((*shape, 3)), x), expected, atol=1e-5)


def test_largest_window_is_the_mean_of_a_map_of_7x7() -> None:
    x = features(1, 7, 7, 2)
    largest = pooled(network((7, 7, 2)), x)[..., 4:]
    np.testing.assert_allclose(largest, np.broadcast_to(x.mean((1, 2)), (1, 7, 7, 2)), atol=1e-5)


def grid_mean(x: np.ndarray, side: int) -> np.ndarray:
    """Mean of each cell of a grid: from the position where it starts to the one where it ends, both included."""
    _, height, width, _ = x.shape
    result = np.empty((len(x), side, side, x.shape[3]), x.dtype)
    for row in range(side):
        for column in range(side):
            rows = slice(row * height // side, -(-(row + 1) * height // side))
            columns = slice(column * width // side, -(-(column + 1) * width // side))
            result[:, row, column] = x[:, rows, columns].mean((1, 2))
    return result


@pytest.mark.parametrize("shape", [(7, 7), (5, 20)])
def test_grids_are_resized_to_the_map(shape: tuple[int, int]) -> None:
    x = features(2, *shape, 3)
    resize = keras.layers.Resizing(*shape)
    expected = np.concatenate([resize(grid_mean(x, side)) for side in (4, 8, 16)], axis=-1)
    np.testing.assert_allclose(pooled(network((*shape, 3), pooling="grid"), x), expected, atol=1e-5)


def test_the_coarsest_grid_is_the_smoothest() -> None:
    x = features(1, 7, 7, 1)
    variation = pooled(network((7, 7, 1), pooling="grid"), x).std((1, 2))[0]
    assert variation[0] < variation[1] < variation[2] < x.std()


def test_worked_by_hand() -> None:
    x = np.array([1, 2, 6], "float32").reshape(1, 1, 3, 1)
    # Window 2 looks one position ahead; window 4 one back and two ahead.
    np.testing.assert_allclose(np.ravel(pooled(network((1, 3, 1), scales=(2,)), x)), [1.5, 4, 6])
    np.testing.assert_allclose(np.ravel(pooled(network((1, 3, 1), scales=(4,)), x)), [3, 3, 4])


def test_projection_against_numpy() -> None:
    model, x = network((3, 4, 2), scales=(1, 3), bottleneck=5), features(2, 3, 4, 2)
    generator = np.random.default_rng(1)
    for weight in model.weights:
        values = generator.normal(size=weight.shape)
        weight.assign(np.abs(values) if "variance" in weight.path else values)

    def block(y: np.ndarray, convolution: str, name: str) -> np.ndarray:
        (kernel,) = model.get_layer(convolution).get_weights()
        gamma, beta, mean, variance = model.get_layer(f"{name}_norm").get_weights()
        y = (y @ kernel[0, 0] - mean) / np.sqrt(variance + model.get_layer(f"{name}_norm").epsilon) * gamma + beta
        return np.maximum(y, 0)

    expected = np.concatenate([x, clipped_mean(x, 3)], axis=-1)
    expected = block(expected, "multi_scale_reduce_conv", "multi_scale_reduce")
    expected = block(expected, "multi_scale_conv", "multi_scale")
    assert (expected == 0).any()
    assert (expected > 0).any()
    np.testing.assert_allclose(model.predict_on_batch(x), expected, rtol=1e-4, atol=1e-5)


def test_parameters_on_the_published_map() -> None:
    model = network((7, 7, 512))
    assert model.output_shape == (None, 7, 7, 512)
    kernels = 1536 * 128 + 128 * 512
    assert model.count_params() == kernels + 4 * (128 + 512)
    assert model.count_params() < 0.3e6


@pytest.mark.parametrize("arguments", [{"scales": ()}, {"scales": (4, 0)}, {"bottleneck": 0}])
def test_sizes_must_be_positive(arguments: dict) -> None:
    with pytest.raises(ValueError, match="positive"):
        network((4, 4, 2), **arguments)


def test_an_unknown_pooling_is_named() -> None:
    with pytest.raises(ValueError, match="pooling is 'max', expected one of window, grid"):
        network((4, 4, 2), pooling="max")
