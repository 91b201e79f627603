"""Networks from encoded metadata to a vector of 512 features."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from keras_skin.layers.class_token import ClassToken
from keras_skin.layers.column_tokens import ColumnTokens

WIDTHS = (64, 128, 256, 512)
TOKEN_FEATURES, TOKEN_HEADS, TOKEN_BLOCKS = 64, 4, 2


def dense(metadata: Any) -> Any:
    """Applies dense layers of 64, 128, 256 and 512 units, with ReLU after all but the last.

    Source: Khurshid et al., Sci. Rep. 2025 (DualRefNet), "Textual feature extractor".

    Args:
        metadata: symbolic (B, M).

    Returns:
        Symbolic (B, 512), like all functions of this module.
    """
    x = metadata
    for number, width in enumerate(WIDTHS, start=1):
        activation = None if number == len(WIDTHS) else "relu"
        x = keras.layers.Dense(width, activation=activation, kernel_initializer="he_normal", name=f"metadata_{number}")(x)
    return x


def weighted(metadata: Any) -> Any:
    """Applies `dense` to columns with weights in (0, 1), which a two-layer network with a sigmoid computes from the row.

    Source: as `dense`, "Ablation study". The hidden layer has the width of the row and ReLU; the paper prints neither.
    """
    columns = metadata.shape[-1]
    x = keras.layers.Dense(columns, activation="relu", kernel_initializer="he_normal", name="metadata_weights_hidden")(metadata)
    weights = keras.layers.Dense(columns, activation="sigmoid", name="metadata_weights")(x)
    return dense(keras.layers.Multiply(name="metadata_weighted")([metadata, weights]))


def transformer(metadata: Any) -> Any:
    """Applies a transformer to one token per column and projects the class token's result to 512 features.

    Source: as `dense`, "Ablation study", which names a transformer encoder without details. This one has tokens of Gorishniy et
    al., NeurIPS 2021, two blocks with pre-normalisation, 64 features and four heads.
    """
    x = ClassToken(name="metadata_class_token")(ColumnTokens(TOKEN_FEATURES, name="metadata_tokens")(metadata))
    for number in range(1, TOKEN_BLOCKS + 1):
        name = f"metadata_block_{number}"
        y = keras.layers.LayerNormalization(name=f"{name}_norm_1")(x)
        attention = keras.layers.MultiHeadAttention(TOKEN_HEADS, TOKEN_FEATURES // TOKEN_HEADS, name=f"{name}_attention")
        x = keras.layers.Add(name=f"{name}_attended")([x, attention(y, y)])
        y = keras.layers.LayerNormalization(name=f"{name}_norm_2")(x)
        y = keras.layers.Dense(2 * TOKEN_FEATURES, activation="gelu", name=f"{name}_dense_1")(y)
        x = keras.layers.Add(name=name)([x, keras.layers.Dense(TOKEN_FEATURES, name=f"{name}_dense_2")(y)])
    x = keras.layers.LayerNormalization(name="metadata_norm")(x)
    first = keras.layers.Cropping1D((0, metadata.shape[-1]), name="metadata_first")(x)
    return keras.layers.Dense(WIDTHS[-1], name="metadata_features")(keras.layers.Flatten(name="metadata_summary")(first))


METADATA_NETWORKS: dict[str, Callable[[Any], Any]] = {"dense": dense, "weighted": weighted, "transformer": transformer}
