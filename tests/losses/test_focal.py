"""Focal loss against numbers by hand, cross-entropy and the focal loss of Keras."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_skin.losses.categorical_crossentropy import CategoricalCrossentropy
from keras_skin.losses.focal import Focal

EYE = np.eye(3, dtype="float32")
GENERATOR = np.random.default_rng(0)
TRUTH = EYE[GENERATOR.integers(0, 3, 20)]
LOGITS = GENERATOR.normal(scale=3, size=(20, 3)).astype("float32")
ALPHA = (0.5, 3.0, 1.25)


def logits(*probabilities: float) -> np.ndarray:
    return np.log(np.array([probabilities], "float32"))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        # p_t = 0.2: -0.8^gamma ln 0.2, with -ln 0.2 = 1.609438.
        ({}, 0.64 * 1.609438),
        ({"gamma": 0.5}, 0.894427 * 1.609438),
        ({"gamma": 1}, 0.8 * 1.609438),
        ({"class_weights": (5, 0.25, 7)}, 0.25 * 0.64 * 1.609438),
    ],
)
def test_worked_by_hand(arguments: dict, expected: float) -> None:
    result = Focal(reduction=None, **arguments)(EYE[1:2], logits(0.7, 0.2, 0.1))
    np.testing.assert_allclose(result, [expected], rtol=1e-5)


def test_image_told_with_certainty_weighs_a_hundredth() -> None:
    plain, focal = (float(Focal(gamma=gamma)(EYE[:1], logits(0.9, 0.06, 0.04))) for gamma in (0, 2))
    assert focal == pytest.approx(plain / 100, rel=1e-5)


@pytest.mark.parametrize("weights", [None, ALPHA])
def test_without_focus_it_is_cross_entropy(weights: tuple | None) -> None:
    focal = Focal(gamma=0, class_weights=weights, reduction=None)(TRUTH, LOGITS)
    plain = CategoricalCrossentropy(class_weights=weights, reduction=None)(TRUTH, LOGITS)
    np.testing.assert_allclose(focal, plain, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("gamma", [0.5, 2.0, 3.0])
def test_agrees_with_keras(gamma: float) -> None:
    theirs = keras.losses.CategoricalFocalCrossentropy(alpha=list(ALPHA), gamma=gamma, from_logits=True, reduction=None)
    ours = Focal(gamma=gamma, class_weights=ALPHA, reduction=None)
    np.testing.assert_allclose(ours(TRUTH, LOGITS), theirs(TRUTH, LOGITS), rtol=1e-4, atol=1e-5)


def test_agrees_with_keras_cv() -> None:
    """Its loss is of two classes with one sigmoid each: the same as ours with the logits (0, z)."""
    keras_cv = pytest.importorskip("keras_cv", reason="the comparison needs keras-cv")
    flags = np.array([[1], [0], [1]], "float32")
    scores = np.array([[0.3], [-1.2], [2.0]], "float32")
    theirs = keras_cv.losses.FocalLoss(alpha=0.25, gamma=2, from_logits=True, reduction="none")(flags, scores)
    pairs = np.concatenate([np.zeros_like(scores), scores], axis=1)
    ours = Focal(class_weights=(0.75, 0.25), reduction=None)(np.concatenate([1 - flags, flags], axis=1), pairs)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)


@pytest.mark.parametrize("weights", [None, ALPHA])
def test_soft_labels_blend_the_losses_of_their_classes(weights: tuple | None) -> None:
    loss = Focal(class_weights=weights, reduction=None)
    shares = GENERATOR.dirichlet((1, 1, 1), 20).astype("float32")
    each = np.stack([np.asarray(loss(np.tile(row, (20, 1)), LOGITS)) for row in EYE], axis=1)
    np.testing.assert_allclose(loss(shares, LOGITS), (shares * each).sum(1), rtol=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_extremes_are_finite(gamma: float) -> None:
    loss = Focal(gamma=gamma, reduction=None)
    extreme = np.array([[1e4, 0, -1e4], [0, 0, 0]], "float32")
    np.testing.assert_allclose(loss(EYE[[0, 0]], extreme)[0], 0, atol=1e-6)
    np.testing.assert_allclose(loss(EYE[[2, 2]], extreme)[0], 2e4, rtol=1e-5)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="differentiates with TensorFlow's tape")
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_gradient(gamma: float) -> None:
    import tensorflow as tf

    loss, shares = Focal(gamma=gamma, class_weights=ALPHA), np.array([[0.25, 0.75, 0.0]], "float32")
    values = keras.Variable(np.array([[0.2, -0.4, 0.1]], "float32"))
    with tf.GradientTape() as tape:
        result = loss(shares, values)
    step = np.array([[1e-2, 0, 0]], "float32")
    slope = (loss(shares, values.numpy() + step) - loss(shares, values.numpy() - step)) / 2e-2
    np.testing.assert_allclose(tape.gradient(result, values.value)[0, 0], slope, rtol=1e-3)
    certain = keras.Variable(np.array([[100.0, 0.0, 0.0]], "float32"))
    with tf.GradientTape() as tape:
        result = loss(EYE[:1], certain)
    assert np.isfinite(ops.convert_to_numpy(tape.gradient(result, certain.value))).all()


@pytest.mark.parametrize(
    ("arguments", "message"), [({"gamma": -1}, "gamma"), ({"class_weights": (1.0, -1.0)}, "class_weights must not be negative")]
)
def test_arguments_out_of_range(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Focal(**arguments)


def test_class_weights_must_be_as_many_as_classes() -> None:
    with pytest.raises(ValueError, match="2 numbers for 3 classes"):
        Focal(class_weights=(1, 1))(TRUTH, LOGITS)
