"""The reverse joint connection, worked by hand."""

import numpy as np
import pytest

from keras_skin.layers.reverse_joint_gate import ReverseJointGate

FEATURES = np.array([[1.0, 2.0], [3.0, 4.0]], "float32").reshape(1, 2, 1, 2)
UNITS = np.array([[-1.0, 2.0]], "float32")


@pytest.mark.parametrize(
    ("gate", "expected"),
    [
        ("relu", [0.0, 4.0, 0.0, 8.0]),  # a negative unit blanks its channel
        ("sigmoid", [0.268941, 1.761594, 0.806824, 3.523188]),
    ],
)
def test_worked_by_hand(gate: str, expected: list[float]) -> None:
    np.testing.assert_allclose(np.ravel(ReverseJointGate(gate)([FEATURES, UNITS])), expected, atol=1e-5)


def test_unknown_gate() -> None:
    with pytest.raises(ValueError, match="relu, sigmoid"):
        ReverseJointGate("tanh")


def test_widths_must_agree() -> None:
    with pytest.raises(ValueError, match=r"\(1, 2, 1, 2\) and \(1, 3\)"):
        ReverseJointGate()([FEATURES, np.ones((1, 3), "float32")])
