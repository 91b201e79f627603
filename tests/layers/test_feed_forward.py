"""The feed-forward step, equation 6, token by token."""

import keras
import numpy as np

from keras_skin.layers.feed_forward import feed_forward


def test_equation_6() -> None:
    generator = np.random.default_rng(0)
    tokens = keras.Input((3, 4))
    model = keras.Model(tokens, feed_forward(tokens, 6, "step"))
    for weight in model.weights:
        weight.assign(generator.normal(size=weight.shape))
    z = generator.normal(size=(2, 3, 4)).astype("float32")
    (w_1, b_1), (w_2, b_2) = (model.get_layer(f"step_{number}").get_weights() for number in (1, 2))
    gamma, beta = model.get_layer("step").get_weights()
    result = model.predict_on_batch(z)
    for image in range(2):
        for token in range(3):
            y = z[image, token] + np.maximum(z[image, token] @ w_1 + b_1, 0) @ w_2 + b_2
            expected = (y - y.mean()) / np.sqrt(y.var() + 1e-5) * gamma + beta
            np.testing.assert_allclose(result[image, token], expected, rtol=1e-4, atol=1e-4)
