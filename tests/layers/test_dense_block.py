"""Dense layer, normalisation, ReLU and dropout, in this order."""

import keras
import numpy as np

from keras_skin.layers.dense_block import dense_block


def network(dropout: float) -> tuple[keras.Model, np.ndarray]:
    inputs = keras.Input((4,))
    model = keras.Model(inputs, dense_block(inputs, 60, dropout, "block"))
    generator = np.random.default_rng(0)
    for weight in model.get_layer("block_norm").weights:
        weight.assign(generator.uniform(0.5, 1.5, weight.shape))
    return model, generator.normal(size=(5, 4)).astype("float32")


def test_against_numpy() -> None:
    model, x = network(0.5)
    (kernel,) = model.get_layer("block_dense").get_weights()
    gamma, beta, mean, variance = model.get_layer("block_norm").get_weights()
    expected = np.maximum((x @ kernel - mean) / np.sqrt(variance + 1e-3) * gamma + beta, 0)
    np.testing.assert_allclose(model.predict_on_batch(x), expected, atol=1e-5)


def test_dropout_comes_last_and_in_training_only() -> None:
    model, x = network(0.5)
    model.get_layer("block_norm").trainable = False  # so that training differs by the dropout alone
    expected = model.predict_on_batch(x)
    trained = keras.ops.convert_to_numpy(model(x, training=True))
    active = trained != 0
    np.testing.assert_allclose(trained[active], 2 * expected[active], rtol=1e-5)
    assert 0.3 < active[expected > 0].mean() < 0.7
