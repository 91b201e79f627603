"""Class weights of losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras import ops


def check_weights(class_weights: Sequence[float] | None) -> list[float] | None:
    """Returns the weights as floats, None for None; raises a ValueError if one is negative."""
    if class_weights is not None and min(class_weights) < 0:
        raise ValueError(f"class_weights must not be negative; they are {list(class_weights)}.")
    return None if class_weights is None else [float(weight) for weight in class_weights]


def apply_weights(y_true: Any, class_weights: Sequence[float] | None) -> Any:
    """Returns targets (B, K) times the weights of their classes, if any; raises a ValueError if there are not K weights."""
    if class_weights is None:
        return y_true
    classes = y_true.shape[-1]
    if len(class_weights) != classes:
        raise ValueError(f"class_weights has {len(class_weights)} numbers for {classes} classes.")
    return y_true * ops.convert_to_tensor(class_weights, "float32")
