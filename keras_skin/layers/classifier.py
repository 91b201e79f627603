"""The dense head from pooled features to class logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras


def classifier(features: Any, classes: int, widths: Sequence[int] = (128, 64, 32), dropout: float = 0.0) -> tuple[Any, list[Any]]:
    """Applies dense layers with ReLU, then a float32 layer of logits.

    Source: Al-masni et al., Bioengineering 2024, 11, 1173, figure 3.

    Args:
        features: symbolic tensor (B, C).
        classes: number of logits.
        widths: units of the hidden layers; `dense_1` is the first.
        dropout: dropout before the logits, in [0, 1).

    Returns:
        The logits (B, classes), float32, from a layer called `label`; and the values of each hidden layer *before* its ReLU, the
        input of a reverse joint gate.
    """
    units = []
    x = features
    for number, width in enumerate(widths, start=1):
        x = keras.layers.Dense(width, kernel_initializer="he_normal", name=f"dense_{number}")(x)
        units.append(x)
        x = keras.layers.ReLU(name=f"dense_{number}_relu")(x)
    if dropout:
        x = keras.layers.Dropout(dropout, name="dropout")(x)
    return keras.layers.Dense(classes, dtype="float32", name="label")(x), units
