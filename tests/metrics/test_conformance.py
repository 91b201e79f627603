"""The shared checks, on every registered metric."""

import conformance
import pytest

from keras_skin import metrics


@pytest.mark.parametrize("name", metrics.names())
def test_metric(name: str) -> None:
    conformance.check_metric(name)
