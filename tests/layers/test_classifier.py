"""The dense head."""

import keras
import numpy as np

from keras_skin.layers.classifier import classifier


def test_units_are_the_values_before_the_activation() -> None:
    features = keras.Input((5,))
    label, units = classifier(features, classes=3, widths=(4, 2))
    model = keras.Model(features, [label, *units])
    x = np.random.default_rng(0).normal(size=(6, 5)).astype("float32")
    result = [np.asarray(value) for value in model(x)]
    (first, first_bias), (second, second_bias), (last, last_bias) = (
        model.get_layer(name).get_weights() for name in ("dense_1", "dense_2", "label")
    )
    np.testing.assert_allclose(result[1], x @ first + first_bias, atol=1e-5)
    np.testing.assert_allclose(result[2], np.maximum(result[1], 0) @ second + second_bias, atol=1e-5)
    np.testing.assert_allclose(result[0], np.maximum(result[2], 0) @ last + last_bias, atol=1e-5)
    assert (result[1] < 0).any()


def test_dropout_is_in_front_of_the_logits_and_of_training_only() -> None:
    features = keras.Input((50,))
    model = keras.Model(features, classifier(features, classes=2, widths=(), dropout=0.5)[0])
    kernel = np.ones((50, 2))
    model.set_weights([kernel, np.zeros(2)])
    x = np.ones((8, 50), "float32")
    np.testing.assert_allclose(np.asarray(model(x, training=False)), 50)
    active = np.asarray(model(x, training=True)) / 2  # dropout doubles the active units
    assert ((active > 5) & (active < 45)).all()
