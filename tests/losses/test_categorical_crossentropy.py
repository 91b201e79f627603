"""Cross-entropy of classes, worked by hand."""

import keras
import numpy as np
import pytest

from keras_skin.losses.categorical_crossentropy import CategoricalCrossentropy

TRUTH = np.array([[1, 0], [0, 1], [0, 1]], "float32")
LOGITS = np.array([[0, 0], [0, 1], [3, 1]], "float32")
PLAIN = np.log(1 + np.exp([0.0, -1.0, 2.0]))  # log(1 + e^(wrong - right))


def test_worked_by_hand() -> None:
    np.testing.assert_allclose(CategoricalCrossentropy(reduction=None)(TRUTH, LOGITS), PLAIN, rtol=1e-5)


def test_is_binary_crossentropy_of_the_difference() -> None:
    probability = 1 / (1 + np.exp(-(LOGITS[:, 1] - LOGITS[:, 0])))
    binary = -(TRUTH[:, 1] * np.log(probability) + TRUTH[:, 0] * np.log(1 - probability))
    np.testing.assert_allclose(CategoricalCrossentropy(reduction=None)(TRUTH, LOGITS), binary, rtol=1e-5)


def test_class_weights() -> None:
    loss = CategoricalCrossentropy(class_weights=(0.5, 3.0), reduction=None)(TRUTH, LOGITS)
    np.testing.assert_allclose(loss, PLAIN * [0.5, 3.0, 3.0], rtol=1e-5)


def test_label_smoothing() -> None:
    # Target (0.95, 0.05) where it was (1, 0): 0.95 log(1 + e^(l1 - l0)) + 0.05 log(1 + e^(l0 - l1)).
    loss = CategoricalCrossentropy(label_smoothing=0.1, reduction=None)(TRUTH, LOGITS)
    opposite = np.log(1 + np.exp([0.0, 1.0, -2.0]))
    np.testing.assert_allclose(loss, 0.95 * PLAIN + 0.05 * opposite, rtol=1e-5)


@pytest.mark.parametrize("arguments", [{}, {"class_weights": (0.5, 3.0)}, {"class_weights": (0.5, 3.0), "label_smoothing": 0.1}])
def test_soft_labels_blend_the_losses_of_their_classes(arguments: dict) -> None:
    loss = CategoricalCrossentropy(reduction=None, **arguments)
    first, second = (loss(np.tile(np.eye(2, dtype="float32")[place], (3, 1)), LOGITS) for place in (0, 1))
    share = np.array([0.0, 0.3, 0.75], "float32")
    np.testing.assert_allclose(
        loss(np.stack([share, 1 - share], axis=1), LOGITS), share * first + (1 - share) * second, rtol=1e-5
    )


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="differentiates with TensorFlow's tape")
def test_gradient_with_class_weights_and_soft_labels() -> None:
    import tensorflow as tf

    loss, labels = CategoricalCrossentropy(class_weights=(0.5, 3.0)), np.array([[0.25, 0.75]], "float32")
    logits = keras.Variable(np.array([[0.2, -0.4]], "float32"))
    step = np.array([[1e-2, 0.0]], "float32")
    with tf.GradientTape() as tape:
        value = loss(labels, logits)
    slope = (loss(labels, logits.numpy() + step) - loss(labels, logits.numpy() - step)) / 2e-2
    np.testing.assert_allclose(tape.gradient(value, logits.value)[0, 0], slope, rtol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"class_weights": (1.0, -1.0)}, "negative"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
    ],
)
def test_arguments_out_of_range(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CategoricalCrossentropy(**arguments)


def test_class_weights_must_be_as_many_as_classes() -> None:
    with pytest.raises(ValueError, match="3 numbers for 2 classes"):
        CategoricalCrossentropy(class_weights=(1, 1, 1))(TRUTH, LOGITS)
