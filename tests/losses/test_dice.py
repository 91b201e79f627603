"""The Dice loss, worked by hand."""

import numpy as np
import pytest

from keras_skin.losses.dice import Dice

RIGHT, WRONG, HALF = 50.0, -50.0, 0.0  # logits of probabilities 1, 0 and 0.5


@pytest.mark.parametrize(
    ("truth", "logits", "expected"),
    [
        ([1, 1, 0, 0], [RIGHT, RIGHT, WRONG, WRONG], 0.0),
        ([1, 1, 0, 0], [WRONG, WRONG, RIGHT, RIGHT], 1 - 1 / 5),  # overlap 0, 2 + 2 pixels: 1 - (0 + 1) / (4 + 1)
        ([1, 1, 0, 0], [HALF, HALF, HALF, HALF], 1 - 3 / 5),  # overlap 2 * 0.5 = 1: 1 - (2 + 1) / (2 + 2 + 1)
        ([1, 1, 0, 0], [RIGHT, WRONG, WRONG, WRONG], 1 - 3 / 4),  # overlap 1: 1 - (2 + 1) / (1 + 2 + 1)
        ([0, 0, 0, 0], [WRONG, WRONG, WRONG, WRONG], 0.0),
        ([0, 0, 0, 0], [RIGHT, RIGHT, RIGHT, RIGHT], 1 - 1 / 5),
    ],
)
def test_worked_by_hand(truth: list[float], logits: list[float], expected: float) -> None:
    shape = (1, 2, 2, 1)
    loss = Dice(reduction=None)(np.reshape(truth, shape).astype("float32"), np.reshape(logits, shape).astype("float32"))
    np.testing.assert_allclose(loss, [expected], atol=1e-6)


def test_images_do_not_share_their_sums() -> None:
    truth = np.zeros((2, 10, 10, 1), "float32")
    truth[0], truth[1, 0, 0] = 1, 1
    logits = np.where(truth > 0, RIGHT, WRONG).astype("float32")
    logits[1] = WRONG  # the small lesion is missed: half of the mean, though one pixel of 101
    np.testing.assert_allclose(Dice()(truth, logits), (0 + 1 - 1 / 2) / 2, atol=1e-6)


def test_large_masks_do_not_overflow_half_precision() -> None:
    truth = np.ones((1, 512, 512, 1), "float16")
    np.testing.assert_allclose(Dice(reduction=None)(truth, 20 * truth), [0.0], atol=1e-6)


def test_smooth() -> None:
    shape = (1, 1, 2, 1)
    loss = Dice(smooth=3.0, reduction=None)(np.zeros(shape, "float32"), np.full(shape, RIGHT, "float32"))
    np.testing.assert_allclose(loss, [1 - 3 / 5], atol=1e-6)
    with pytest.raises(ValueError, match="positive"):
        Dice(smooth=0.0)
