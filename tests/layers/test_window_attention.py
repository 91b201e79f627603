"""Attention within windows: who sees whom, with and without a shift and padding."""

from __future__ import annotations

import numpy as np
import pytest
from keras import ops

from keras_skin.layers.window_attention import WindowAttention


def features(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def run(layer: WindowAttention, inputs: np.ndarray) -> np.ndarray:
    return ops.convert_to_numpy(layer(inputs))


def depends_on(layer: WindowAttention, x: np.ndarray, place: tuple[int, int]) -> np.ndarray:
    """(H, W): whether the result at `place` changes with the input of each position."""
    _, height, width, _ = x.shape
    changes = np.eye(height * width, dtype="float32").reshape(-1, height, width, 1)
    results = run(layer, np.concatenate([x, x + changes]))[:, place[0], place[1]]
    return (np.abs(results[1:] - results[0]).max(axis=1) > 1e-6).reshape(height, width)


def test_a_window_is_plain_attention_with_a_bias_per_relative_position() -> None:
    x, layer = features(1, 3, 3, 4), WindowAttention(heads=1, window=3)
    layer.build(x.shape)
    layer.bias.assign(features(25, 1))
    result = run(layer, x)
    table, kernel, bias, projection, offset = (ops.convert_to_numpy(weight) for weight in layer.weights)
    query, key, value = np.split(x.reshape(9, 4) @ kernel + bias, 3, axis=1)
    logits = query @ key.T / 2
    for i in range(9):
        for j in range(9):
            logits[i, j] += table[(i // 3 - j // 3 + 2) * 5 + i % 3 - j % 3 + 2, 0]
    weights = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(result.reshape(9, 4), weights @ value @ projection + offset, rtol=1e-4, atol=1e-5)


def test_a_position_sees_its_window() -> None:
    expected = np.zeros((4, 6), bool)
    expected[2:4, 2:4] = True
    x = features(1, 4, 6, 4)
    np.testing.assert_array_equal(depends_on(WindowAttention(heads=2, window=2), x, (2, 3)), expected)


def test_shifted_windows_end_at_the_border() -> None:
    """Windows of 4 moved by 2: the corner has a window of its own, and opposite borders do not see each other."""
    x, layer = features(1, 8, 8, 4), WindowAttention(heads=2, window=4, shift=2)
    windows = {
        (3, 3): (slice(2, 6), slice(2, 6)),
        (0, 0): (slice(0, 2), slice(0, 2)),
        (7, 4): (slice(6, 8), slice(2, 6)),
    }
    for place, (rows, columns) in windows.items():
        expected = np.zeros((8, 8), bool)
        expected[rows, columns] = True
        np.testing.assert_array_equal(depends_on(layer, x, place), expected)


@pytest.mark.parametrize("shift", [0, 2])
def test_nothing_sees_the_padding(shift: int) -> None:
    """On a map of 6x6, windows of 4 are padded to 8x8. A position then attends only to those of the map: with equal logits the
    result is their mean."""
    x, layer = features(1, 6, 6, 2), WindowAttention(heads=1, window=4, shift=shift)
    layer.build(x.shape)
    identity = np.eye(2, dtype="float32")
    kernel = np.concatenate([np.zeros((2, 4)), identity], axis=1)
    layer.set_weights([np.zeros((49, 1)), kernel, np.zeros(6), identity, np.zeros(2)])
    window = x[0, 4:, 4:] if shift == 0 else x[0, 2:, 2:]
    np.testing.assert_allclose(run(layer, x)[0, 5, 5], window.reshape(-1, 2).mean(axis=0), atol=1e-5)


def test_a_map_of_one_window_is_not_shifted() -> None:
    x, layer = features(1, 4, 4, 4), WindowAttention(heads=2, window=4, shift=2)
    assert depends_on(layer, x, (0, 0)).all()


def test_heads_that_do_not_divide_the_channels() -> None:
    with pytest.raises(ValueError, match="6 channels cannot be divided among 4 heads"):
        WindowAttention(heads=4)(features(1, 7, 7, 6))
