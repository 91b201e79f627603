"""The metadata networks against equation 7 and a transformer block in NumPy."""

import keras
import numpy as np

from keras_skin.layers.metadata_encoder import dense_metadata, transformer_metadata

EPSILON = 1e-3


def randomise(model: keras.Model) -> np.random.Generator:
    generator = np.random.default_rng(0)
    for weight in model.weights:
        values = generator.normal(size=weight.shape)
        weight.assign(np.abs(values) + 0.5 if "variance" in weight.path else values)
    return generator


def test_equation_7() -> None:
    inputs = keras.Input((6,))
    model = keras.Model(inputs, dense_metadata(inputs, 5))
    x = randomise(model).normal(size=(7, 6)).astype("float32")
    expected = x
    for number in (1, 2):
        kernel, bias = model.get_layer(f"metadata_dense_{number}").get_weights()
        gamma, beta, mean, variance = model.get_layer(f"metadata_norm_{number}").get_weights()
        expected = (np.maximum(expected @ kernel + bias, 0) - mean) / np.sqrt(variance + EPSILON) * gamma + beta
    np.testing.assert_allclose(model.predict_on_batch(x), expected, rtol=1e-4, atol=1e-4)


def layer_norm(x: np.ndarray, weights: list[np.ndarray]) -> np.ndarray:
    gamma, beta = weights
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * gamma + beta


def test_transformer() -> None:
    inputs = keras.Input((6,))
    model = keras.Model(inputs, transformer_metadata(inputs, (1, 3), 8))
    x = randomise(model).normal(size=(3, 6)).astype("float32")
    tokens = keras.Model(inputs, model.get_layer("metadata_tokens").output).predict_on_batch(x).astype("float64")
    w_q, b_q, w_k, b_k, w_v, b_v, w_o, b_o = model.get_layer("metadata_attention").get_weights()
    attended = np.tile(b_o.astype("float64"), (3, 2, 1))
    for head in range(4):
        q, k, v = (tokens @ w[:, head] + b[head] for w, b in ((w_q, b_q), (w_k, b_k), (w_v, b_v)))
        scores = np.exp(q @ k.transpose(0, 2, 1) / np.sqrt(2))
        attended += scores / scores.sum(-1, keepdims=True) @ v @ w_o[head]
    y = layer_norm(tokens + attended, model.get_layer("metadata_attended_norm").get_weights())
    (w_1, b_1), (w_2, b_2) = (model.get_layer(f"metadata_feed_forward_{number}").get_weights() for number in (1, 2))
    y = layer_norm(y + np.maximum(y @ w_1 + b_1, 0) @ w_2 + b_2, model.get_layer("metadata_feed_forward").get_weights())
    np.testing.assert_allclose(model.predict_on_batch(x), y.mean(1), rtol=1e-3, atol=1e-3)
