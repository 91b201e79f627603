"""Networks from encoded metadata to features: two dense layers, or a transformer over the fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from keras_skin.layers.batch_normalization import BatchNormalization
from keras_skin.layers.conv_block import MOMENTUM
from keras_skin.layers.feed_forward import feed_forward
from keras_skin.layers.field_tokens import FieldTokens

HEADS = 4


def dense_metadata(metadata: Any, units: int, name: str = "metadata") -> Any:
    """Computes BN(ReLU(W2 BN(ReLU(W1 x)))).

    Source: Atiq and Fattah (paper 002), equation 7.

    Args:
        metadata: symbolic tensor (B, M).
        units: width of both layers.
        name: prefix of the layers.

    Returns:
        Symbolic tensor (B, units).
    """
    x = metadata
    for number in (1, 2):
        layer = keras.layers.Dense(units, activation="relu", kernel_initializer="he_normal", name=f"{name}_dense_{number}")
        x = BatchNormalization(momentum=MOMENTUM, name=f"{name}_norm_{number}")(layer(x))
    return x


def transformer_metadata(metadata: Any, widths: Sequence[int], units: int, name: str = "metadata") -> Any:
    """Applies a transformer block with post-normalisation to one token per field, and averages the tokens.

    Source: Atiq and Fattah (paper 002) mention a "transformer-based" encoder without a description. This is the block of Vaswani
    et al., NeurIPS 2017, section 3.1, on tokens as in FT-Transformer, with four heads and a hidden layer of twice the width.

    Args:
        metadata: symbolic tensor (B, sum(widths) + len(widths)), in the layout of `KnownFields`.
        widths: number of columns of each field.
        units: width of the tokens, a multiple of 4.
        name: prefix of the layers.

    Returns:
        Symbolic tensor (B, units).
    """
    tokens = FieldTokens(widths, units, name=f"{name}_tokens")(metadata)
    attended = keras.layers.MultiHeadAttention(HEADS, units // HEADS, name=f"{name}_attention")(tokens, tokens)
    x = keras.layers.Add(name=f"{name}_attended")([tokens, attended])
    x = keras.layers.LayerNormalization(epsilon=1e-5, name=f"{name}_attended_norm")(x)
    x = feed_forward(x, 2 * units, f"{name}_feed_forward")
    return keras.layers.GlobalAveragePooling1D(name=f"{name}_pooled")(x)
