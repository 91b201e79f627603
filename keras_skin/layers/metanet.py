"""MetaNet: metadata multiply the channels of feature maps."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_skin")
class MetaNet(keras.layers.Layer):
    """Feature maps weighted by channel: features * sigmoid(W_2 ReLU(W_1 metadata + b_1) + b_2).

    Source: Li et al., "Fusing Metadata and Dermoscopy Images for Skin Disease Diagnosis", ISBI 2020, with the 64 hidden units
    that Pacheco and Krohling use in their comparison (IEEE J. Biomed. Health Inform. 2021).

    Args:
        hidden_units: width of the hidden layer.
        **kwargs: base layer arguments.

    Call arguments:
        inputs: pair of feature maps (B, H, W, C) and metadata (B, M).

    Returns:
        Feature maps (B, H, W, C).

    Example:

    >>> MetaNet()([keras.ops.ones((2, 7, 7, 16)), keras.ops.ones((2, 5))]).shape
    TensorShape([2, 7, 7, 16])
    """

    def __init__(self, hidden_units: int = 64, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.hidden_units = hidden_units

    def build(self, input_shape: Any) -> None:
        features, metadata = input_shape
        self.hidden = keras.layers.Dense(
            self.hidden_units, activation="relu", kernel_initializer="he_normal", name="hidden", dtype=self.dtype_policy
        )
        self.gates = keras.layers.Dense(features[-1], activation="sigmoid", name="gates", dtype=self.dtype_policy)
        self.hidden.build(metadata)
        self.gates.build((None, self.hidden_units))
        self.built = True

    def call(self, inputs: Any) -> Any:
        features, metadata = inputs
        return features * ops.expand_dims(self.gates(self.hidden(metadata)), (1, 2))

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        return tuple(input_shape[0])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "hidden_units": self.hidden_units}
