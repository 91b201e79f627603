"""Scaling of every channel of every image to its own range."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_skin")
class MinMaxScaling(keras.layers.Layer):
    """Scales each channel of each image to [0, 1] by its own smallest and largest value.

    Source: Al-masni et al., Bioengineering 2024, 11, 1173, section 3.2: "we normalized each RGB dermoscopy image in a
    channel-wise manner, scaling them between zero and unity". A channel of one value becomes 0.

    Call arguments:
        images: (B, H, W, C).

    Returns:
        Images (B, H, W, C) in 0..1. They do not depend on the brightness, contrast and colour of the light: a gain and an offset
        of a channel cancel.
    """

    def call(self, images: Any) -> Any:
        smallest = ops.min(images, axis=(1, 2), keepdims=True)
        spread = ops.max(images, axis=(1, 2), keepdims=True) - smallest
        return ops.divide_no_nan(images - smallest, spread)

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        return tuple(input_shape)
