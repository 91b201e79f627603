"""The attention of ConViT: it starts as a convolution, and the gate decides between contents and positions."""

from __future__ import annotations

import numpy as np
import pytest
from keras import ops

from keras_skin.layers.gated_positional_attention import ContentAttention, GatedPositionalAttention


def tokens(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=shape).astype("float32")


def softmax(values: np.ndarray) -> np.ndarray:
    exponents = np.exp(values - values.max(axis=-1, keepdims=True))
    return exponents / exponents.sum(axis=-1, keepdims=True)


def test_it_starts_as_a_convolution() -> None:
    """With 9 heads, strong locality and open gates, head h passes on the value at its own offset of a 3x3 kernel."""
    layer = GatedPositionalAttention(heads=9, grid=(5, 5), locality=40.0)
    x = tokens(1, 25, 9)
    layer.build(x.shape)
    layer.gate.assign(np.full(9, 40.0))
    layer.projection.set_weights([np.eye(9), np.zeros(9)])
    result = ops.convert_to_numpy(layer(x)).reshape(5, 5, 9)
    image = x.reshape(5, 5, 9)
    for head in range(9):
        row, column = head % 3 - 1, head // 3 - 1
        np.testing.assert_allclose(result[2, 2, head], image[2 + row, 2 + column, head], atol=1e-4)


def test_the_first_values_are_the_tokens_and_the_gates_are_at_one() -> None:
    layer = GatedPositionalAttention(heads=4, grid=(2, 3))
    layer.build((None, 6, 8))
    np.testing.assert_array_equal(ops.convert_to_numpy(layer.value.kernel), np.eye(8))
    np.testing.assert_array_equal(ops.convert_to_numpy(layer.gate), np.ones(4))
    kernel = ops.convert_to_numpy(layer.positional.kernel)
    np.testing.assert_array_equal(kernel, [[-1, -1, 1, 1], [-1, 1, -1, 1], [-1, -1, -1, -1]])


def test_equation_7() -> None:
    x, layer = tokens(2, 6, 4), GatedPositionalAttention(heads=1, grid=(2, 3))
    layer.build(x.shape)
    layer.gate.assign([0.3])
    result = ops.convert_to_numpy(layer(x))
    weights = [ops.convert_to_numpy(weight) for weight in (layer.query_key.kernel, layer.value.kernel, layer.projection.kernel)]
    query, key = np.split(x @ weights[0], 2, axis=-1)
    contents = softmax(query @ key.swapaxes(1, 2) / 2)
    kernel = ops.convert_to_numpy(layer.positional.kernel)[:, 0]
    distances = np.empty((6, 6))
    for i in range(6):
        for j in range(6):
            dx, dy = j % 3 - i % 3, j // 3 - i // 3
            distances[i, j] = kernel @ [dx, dy, dx**2 + dy**2]
    gate = 1 / (1 + np.exp(-0.3))
    attention = (1 - gate) * contents + gate * softmax(distances)
    np.testing.assert_allclose(result, attention @ x @ weights[1] @ weights[2], rtol=1e-4, atol=1e-5)


def test_content_attention_does_not_know_the_order() -> None:
    x, layer = tokens(1, 5, 8), ContentAttention(heads=2)
    order = np.array([3, 0, 4, 2, 1])
    results = [ops.convert_to_numpy(layer(values)) for values in (x, x[:, order])]
    np.testing.assert_allclose(results[0][:, order], results[1], rtol=1e-4, atol=1e-6)


def test_heads_that_do_not_divide_the_features() -> None:
    with pytest.raises(ValueError, match="6 features cannot be divided among 4 heads"):
        ContentAttention(heads=4)(tokens(1, 3, 6))
