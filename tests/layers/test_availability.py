"""Masks of unknown metadata, computed by hand; no unknown value passes."""

import keras
import numpy as np
import pytest

from keras_skin.layers.availability import AvailabilityMask, KnownFields

NAN, INF = np.nan, np.inf


def masked(rows: list[list[float]], widths: tuple[int, ...]) -> list[list[float]]:
    return keras.ops.convert_to_numpy(KnownFields(widths)(np.array(rows, "float32"))).tolist()


def test_columns_of_unknown_fields_are_zero() -> None:
    rows = [[0.5, 1, 0, 1, 1], [0.5, 1, 0, 0, 1], [0.5, 1, 0, 1, 0], [0.5, 1, 0, 0, 0]]
    assert masked(rows, (1, 2)) == [[0.5, 1, 0, 1, 1], [0, 1, 0, 0, 1], [0.5, 0, 0, 1, 0], [0, 0, 0, 0, 0]]


def test_not_even_what_is_no_number_comes_through() -> None:
    assert masked([[NAN, INF, -INF, 0, 0], [NAN, 3, 4, 0, 1]], (1, 2)) == [[0, 0, 0, 0, 0], [0, 3, 4, 0, 1]]


def test_available_if_any_field_is_known() -> None:
    features = np.array([[1, 2], [3, 4], [NAN, INF], [5, 6]], "float32")
    metadata = np.array([[9, 1, 1], [9, 0, 1], [9, 0, 0], [9, 1, 0]], "float32")
    result = keras.ops.convert_to_numpy(AvailabilityMask(2)([features, metadata]))
    assert result.tolist() == [[1, 2], [3, 4], [0, 0], [5, 6]]


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match=r"Fields of \[1, 2\] columns need 5 columns in all, got 4"):
        KnownFields([1, 2])(np.ones((1, 4), "float32"))
    with pytest.raises(ValueError, match="positive"):
        KnownFields([])
    with pytest.raises(ValueError, match="positive"):
        AvailabilityMask(0)
