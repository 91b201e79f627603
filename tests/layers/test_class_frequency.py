"""Class-frequency regularisation against equation 4 written as loops."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_skin.layers.class_frequency import ClassFrequencyClassifier

COUNTS = (5, 40, 400)


def equation_4(before: np.ndarray, classifier: np.ndarray, coefficient: str = "outgoing") -> float:
    frequencies = [1 / count for count in COUNTS]
    total = 0.0
    for unit in range(before.shape[1]):
        if coefficient == "uniform":
            share = sum(frequencies) / len(frequencies)
        else:
            outgoing = [abs(classifier[unit, label]) for label in range(len(COUNTS))]
            share = sum(f * weight for f, weight in zip(frequencies, outgoing, strict=True)) / sum(outgoing)
        for row in range(before.shape[0]):
            total += share * abs(before[row, unit])
    for label, frequency in enumerate(frequencies):
        for unit in range(classifier.shape[0]):
            total += frequency * abs(classifier[unit, label])
    return total


def built(**arguments: object) -> ClassFrequencyClassifier:
    layer = ClassFrequencyClassifier(3, 6, class_counts=COUNTS, **arguments)
    layer.build((None, 4))
    generator = np.random.default_rng(3)
    layer.set_weights([generator.normal(size=weight.shape) for weight in layer.get_weights()])
    return layer


@pytest.mark.parametrize("coefficient", ["outgoing", "uniform"])
def test_penalty_against_loops(coefficient: str) -> None:
    layer = built(strength=0.3, hidden_coefficient=coefficient)
    before, _, classifier, _ = layer.get_weights()
    expected = equation_4(before, classifier, coefficient)
    np.testing.assert_allclose(float(layer.penalty()), expected, rtol=1e-6)
    layer(np.ones((2, 4), "float32"))
    np.testing.assert_allclose(float(ops.sum(layer.losses)), 0.3 * expected, rtol=1e-6)


def test_worked_by_hand() -> None:
    layer = ClassFrequencyClassifier(2, 1, strength=1.0, class_counts=(2, 10))
    layer.build((None, 2))
    layer.set_weights([np.array([[3.0], [-1.0]]), np.zeros(1), np.array([[1.0, -3.0]]), np.zeros(2)])
    # The unit serves the classes by 1/4 and 3/4: f = 0.5 / 4 + 0.1 * 3 / 4 = 0.2. 0.2 * (3 + 1) + 0.5 * 1 + 0.1 * 3 = 1.6.
    np.testing.assert_allclose(float(layer.penalty()), 1.6, rtol=1e-6)


def test_rarer_classes_and_the_units_that_serve_them_have_larger_coefficients() -> None:
    layer = built(strength=1.0)
    assert (np.diff(ops.convert_to_numpy(layer.class_coefficients())) < 0).all()
    weights = layer.get_weights()
    weights[2] = np.repeat(np.eye(3), 2, axis=0) + 1e-3
    layer.set_weights(weights)
    hidden = ops.convert_to_numpy(layer.hidden_coefficients(layer.logits.kernel))
    assert (hidden[:2] > hidden[2:4]).all()
    assert (hidden[2:4] > hidden[4:]).all()


@pytest.mark.parametrize("coefficient", ["outgoing", "uniform"])
def test_one_step_moves_both_kernels_by_their_coefficients(coefficient: str) -> None:
    """Nothing but the penalty: its gradient is f sign(W) in both layers, none flows through the hidden coefficients."""
    layer = built(strength=0.5, hidden_coefficient=coefficient)
    x = keras.Input((4,))
    model = keras.Model(x, layer(x))
    model.compile(keras.optimizers.SGD(0.1), loss="mse", loss_weights=0.0)
    before, bias, classifier, _ = layer.get_weights()
    hidden = ops.convert_to_numpy(layer.hidden_coefficients(layer.logits.kernel))
    model.train_on_batch(np.ones((2, 4), "float32"), np.ones((2, 3), "float32"))
    result = layer.get_weights()
    np.testing.assert_allclose(result[0], before - 0.05 * hidden * np.sign(before), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(result[1], bias)
    np.testing.assert_allclose(result[2], classifier - 0.05 / np.array(COUNTS) * np.sign(classifier), rtol=1e-5, atol=1e-6)


def test_steps_are_reproducible() -> None:
    """Coefficients are those of the weights before the step, whatever order TensorFlow runs its operations in."""

    def step() -> bytes:
        layer = built(strength=0.5)
        x = keras.Input((4,))
        model = keras.Model(x, layer(x))
        model.compile(keras.optimizers.SGD(0.1), loss="mse", jit_compile=False)
        model.train_on_batch(np.ones((2, 4), "float32"), np.ones((2, 3), "float32"))
        return layer.get_weights()[0].tobytes()

    assert len({step() for _ in range(12)}) == 1


def test_without_strength_nothing_is_added_and_no_counts_are_needed() -> None:
    layer = ClassFrequencyClassifier(3, 6)
    layer(np.ones((2, 4), "float32"))
    assert layer.losses == []


def test_a_class_without_training_images_is_left_alone() -> None:
    layer = ClassFrequencyClassifier(3, 6, strength=1.0, class_counts=(5, 0, 20))
    np.testing.assert_allclose(ops.convert_to_numpy(layer.class_coefficients()), [0.2, 0, 0.05], rtol=1e-6)


def test_a_unit_that_serves_no_class_stays_finite() -> None:
    layer = built(strength=1.0)
    weights = layer.get_weights()
    weights[2] = np.zeros_like(weights[2])
    layer.set_weights(weights)
    assert float(layer.penalty()) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"strength": 1.0}, "class_counts is None, expected 3"),
        ({"strength": 1.0, "class_counts": (1, 2)}, "expected 3 numbers"),
        ({"strength": 1.0, "class_counts": (1, -1, 2)}, "expected 3 numbers"),
        ({"strength": 1.0, "class_counts": (0, 0, 0)}, "not all 0"),
        ({"strength": -1.0}, "strength is -1.0"),
        ({"hidden_coefficient": "other"}, "'other', expected one of outgoing, uniform"),
    ],
)
def test_arguments_are_checked(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClassFrequencyClassifier(3, **arguments)
