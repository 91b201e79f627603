"""Cross-attention against a loop over heads."""

import keras
import numpy as np
import pytest

from keras_skin.layers.cross_attention import cross_attention


def network(features: int, heads: int, queries: int = 4, keys: int = 5) -> keras.Model:
    inputs = {name: keras.Input((length, features), name=name) for name, length in (("q", queries), ("k", keys), ("v", keys))}
    attended = cross_attention(inputs["q"], inputs["k"], inputs["v"], heads, "attention")
    model = keras.Model(inputs, attended)
    return keras.Model(inputs, dict(zip(("attended", "weights"), model.get_layer("attention").output, strict=True)))


def reference(q: np.ndarray, k: np.ndarray, v: np.ndarray, parameters: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Of one image (N, C), (M, C), (M, C): the projected heads and the weights (heads, N, M), one number at a time."""
    w_q, b_q, w_k, b_k, w_v, b_v, w_o, b_o = (array.astype("float64") for array in parameters)
    result = np.tile(b_o, (len(q), 1))
    weights = np.empty((w_q.shape[1], len(q), len(k)))
    for head in range(w_q.shape[1]):
        queries, keys, values = q @ w_q[:, head] + b_q[head], k @ w_k[:, head] + b_k[head], v @ w_v[:, head] + b_v[head]
        for i in range(len(q)):
            scores = np.array([queries[i] @ key / np.sqrt(w_k.shape[2]) for key in keys])
            weights[head, i] = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
            result[i] += sum(weights[head, i, j] * values[j] for j in range(len(v))) @ w_o[head]
    return result, weights


def test_against_a_loop_over_heads() -> None:
    generator = np.random.default_rng(0)
    model = network(6, 3)
    layer = model.get_layer("attention")
    layer.set_weights([generator.normal(size=array.shape) for array in layer.get_weights()])
    assert [array.shape for array in layer.get_weights()[:2]] == [(6, 3, 2), (3, 2)]
    inputs = {name: generator.normal(size=(2, *tensor.shape[1:])).astype("float32") for name, tensor in model.input.items()}
    result = model.predict_on_batch(inputs)
    for index in range(2):
        attended, weights = reference(*(inputs[name][index] for name in "qkv"), layer.get_weights())
        np.testing.assert_allclose(result["weights"][index], weights, atol=1e-5)
        np.testing.assert_allclose(result["attended"][index], attended, atol=1e-4)


def test_worked_by_hand() -> None:
    model = network(1, 1, queries=1, keys=2)
    one, zero = np.ones((1, 1, 1), "float32"), np.zeros((1, 1), "float32")
    model.get_layer("attention").set_weights([one, zero, one, zero, one, zero, one, zero[0]])
    # Scores 2 * 0 and 2 * log(3) / 2: weights 1/4 and 3/4 of the values 4 and 8.
    tokens = {"q": [[[2.0]]], "k": [[[0.0], [np.log(3) / 2]]], "v": [[[4.0], [8.0]]]}
    result = model.predict_on_batch({name: np.array(value, "float32") for name, value in tokens.items()})
    np.testing.assert_allclose(np.ravel(result["weights"]), [0.25, 0.75], rtol=1e-6)
    np.testing.assert_allclose(np.ravel(result["attended"]), [7.0], rtol=1e-6)


def test_parameters_of_eight_heads_of_240() -> None:
    layer = network(1920, 8).get_layer("attention")
    assert layer.count_params() == 4 * (1920 * 1920 + 1920)
    assert layer.key_dim == 240


def test_sizes_must_fit() -> None:
    with pytest.raises(ValueError, match="6 features cannot be divided among 4 heads"):
        network(6, 4)
    query, key, value = keras.Input((4, 6)), keras.Input((5, 6)), keras.Input((4, 6))
    with pytest.raises(ValueError, match="5 keys and 4 values"):
        cross_attention(query, key, value, 2, "attention")
