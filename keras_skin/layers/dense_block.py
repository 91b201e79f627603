"""Dense layer, batch normalisation, ReLU and dropout: the block of projections and classifiers."""

from __future__ import annotations

from typing import Any

import keras

from keras_skin.layers.batch_normalization import BatchNormalization
from keras_skin.layers.conv_block import MOMENTUM


def dense_block(inputs: Any, units: int, dropout: float, name: str) -> Any:
    """Applies a dense layer without bias, batch normalisation, ReLU and dropout.

    Args:
        inputs: symbolic tensor (B, C).
        units: width of the dense layer.
        dropout: dropout of the units, in [0, 1).
        name: prefix of the layers, and name of the ReLU; dropout follows it.

    Returns:
        Symbolic tensor (B, units), not negative.
    """
    x = keras.layers.Dense(units, use_bias=False, kernel_initializer="he_normal", name=f"{name}_dense")(inputs)
    x = BatchNormalization(momentum=MOMENTUM, name=f"{name}_norm")(x)
    x = keras.layers.ReLU(name=name)(x)
    return keras.layers.Dropout(dropout, name=f"{name}_dropout")(x)
