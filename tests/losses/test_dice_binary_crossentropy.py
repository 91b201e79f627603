"""The joint loss of a mask: equations 1 to 3 of paper 002, and the weights of equation 4."""

import keras
import numpy as np
import pytest

from keras_skin.losses.dice_binary_crossentropy import DiceBinaryCrossentropy


def reference(truth: np.ndarray, logits: np.ndarray, smooth: float) -> float:
    """Of one image, pixel by pixel in float64."""
    entropy, overlap, total = 0.0, 0.0, 0.0
    for y, logit in zip(truth.ravel().astype("float64"), logits.ravel().astype("float64"), strict=True):
        p = 1 / (1 + np.exp(-logit))
        entropy -= y * np.log(p) + (1 - y) * np.log(1 - p)
        overlap += y * p
        total += y + p
    return entropy / truth.size + 1 - (2 * overlap + smooth) / (total + smooth)


def random_masks() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    return (generator.uniform(size=(3, 5, 4, 1)) < 0.4).astype("float32"), generator.normal(size=(3, 5, 4, 1)).astype("float32")


@pytest.mark.parametrize("smooth", [1.0, 1e-3])
def test_against_loops(smooth: float) -> None:
    truth, logits = random_masks()
    result = DiceBinaryCrossentropy(smooth, reduction=None)(truth, logits)
    expected = [reference(*pair, smooth) for pair in zip(truth, logits, strict=True)]
    np.testing.assert_allclose(keras.ops.convert_to_numpy(result), expected, rtol=1e-5)


def test_worked_by_hand() -> None:
    # p = 1/2 in both pixels: cross-entropy log 2; Dice 1 - (2 * 1/2 + 1) / (1 + 1 + 1) = 1/3.
    truth, logits = np.array([1, 0], "float32").reshape(1, 2, 1, 1), np.zeros((1, 2, 1, 1), "float32")
    assert float(DiceBinaryCrossentropy()(truth, logits)) == pytest.approx(np.log(2) + 1 / 3)


def test_deep_supervision_adds_up_as_in_equation_4() -> None:
    truth, logits = random_masks()
    weights = {"mask": 1.0, "mask_aux_1": 0.2, "mask_aux_2": 0.1}
    inputs = keras.Input((5, 4, 1))
    scaled = {name: keras.layers.Rescaling(factor, name=name)(inputs) for name, factor in zip(weights, (1, 2, -1), strict=True)}
    model = keras.Model(inputs, scaled)
    model.compile(loss={name: DiceBinaryCrossentropy() for name in weights}, loss_weights=weights)
    total = model.test_on_batch(logits, dict.fromkeys(weights, truth), return_dict=True)["loss"]
    each = [np.mean([reference(*pair, 1.0) for pair in zip(truth, factor * logits, strict=True)]) for factor in (1.0, 2.0, -1.0)]
    assert total == pytest.approx(each[0] + 0.2 * each[1] + 0.1 * each[2], rel=1e-5)
