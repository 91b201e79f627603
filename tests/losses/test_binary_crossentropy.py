"""Binary cross-entropy of masks, worked by hand."""

import numpy as np

from keras_skin.losses.binary_crossentropy import BinaryCrossentropy


def test_worked_by_hand() -> None:
    truth = np.array([[1.0, 0.0], [1.0, 1.0]], "float32").reshape(2, 1, 2, 1)
    logits = np.array([[0.0, 0.0], [2.0, -2.0]], "float32").reshape(2, 1, 2, 1)
    # log 2; and the mean of log(1 + e^-2) = 0.126928 and log(1 + e^2) = 2.126928
    np.testing.assert_allclose(BinaryCrossentropy(reduction=None)(truth, logits), [0.693147, 1.126928], atol=1e-5)
