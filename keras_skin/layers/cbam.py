"""Convolutional block attention."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_skin")
class CBAM(keras.layers.Layer):
    """Channel attention, then spatial attention.

    Source: Woo et al., ECCV 2018, equations 1 to 3; used by Al-masni et al., Bioengineering 2024, 11, 1173, section 3.4.3.

    - Channel attention: sigmoid(MLP(average over positions) + MLP(maximum over positions)), one shared two-layer perceptron.
    - Spatial attention: sigmoid of a convolution over the channel-wise average and maximum.

    Args:
        hidden_units: width of the perceptron's hidden layer, positive.
        kernel_size: side of the spatial convolution's kernel (no bias).
        **kwargs: base layer arguments.

    Call arguments:
        inputs: feature maps (B, H, W, C).

    Returns:
        Feature maps (B, H, W, C).

    Example:

    >>> CBAM(hidden_units=4)(keras.ops.ones((1, 6, 8, 16))).shape
    TensorShape([1, 6, 8, 16])
    """

    def __init__(self, hidden_units: int = 32, kernel_size: int = 7, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if hidden_units < 1 or kernel_size < 1:
            raise ValueError(f"hidden_units and kernel_size must be positive; they are {hidden_units} and {kernel_size}.")
        self.hidden_units = hidden_units
        self.kernel_size = kernel_size

    def build(self, input_shape: Any) -> None:
        channels = input_shape[-1]
        self.hidden = keras.layers.Dense(
            self.hidden_units, activation="relu", kernel_initializer="he_normal", name="hidden", dtype=self.dtype_policy
        )
        self.channel_logits = keras.layers.Dense(channels, name="channel_logits", dtype=self.dtype_policy)
        self.spatial_logits = keras.layers.Conv2D(
            1, self.kernel_size, padding="same", use_bias=False, name="spatial_logits", dtype=self.dtype_policy
        )
        self.hidden.build((None, channels))
        self.channel_logits.build((None, self.hidden_units))
        self.spatial_logits.build((*input_shape[:-1], 2))
        self.built = True

    def call(self, inputs: Any) -> Any:
        average = self.channel_logits(self.hidden(ops.mean(inputs, axis=(1, 2))))
        maximum = self.channel_logits(self.hidden(ops.max(inputs, axis=(1, 2))))
        x = inputs * ops.sigmoid(average + maximum)[:, None, None, :]
        positions = ops.concatenate([ops.mean(x, axis=-1, keepdims=True), ops.max(x, axis=-1, keepdims=True)], axis=-1)
        return x * ops.sigmoid(self.spatial_logits(positions))

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "hidden_units": self.hidden_units, "kernel_size": self.kernel_size}
