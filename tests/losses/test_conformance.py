"""The shared checks, on every registered loss."""

import conformance
import pytest

from keras_skin import losses


@pytest.mark.parametrize("name", losses.names())
def test_loss(name: str) -> None:
    conformance.check_loss(name)
