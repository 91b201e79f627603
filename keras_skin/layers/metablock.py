"""MetaBlock: metadata gate feature maps like the gates of an LSTM."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_skin.layers.batch_normalization import BatchNormalization
from keras_skin.layers.conv_block import MOMENTUM


@keras.saving.register_keras_serializable(package="keras_skin")
class MetaBlock(keras.layers.Layer):
    """Metadata processing block: sigmoid(tanh(features * f(metadata)) + g(metadata)), where f and g give one value per channel.

    Source: Pacheco and Krohling, "An attention-based mechanism to combine images and metadata in deep learning models applied to
    skin cancer classification", IEEE J. Biomed. Health Inform. 2021, section III; f and g are dense layers with batch
    normalisation, as in the authors' code.

    Call arguments:
        inputs: pair of feature maps (B, H, W, C) and metadata (B, M).

    Returns:
        Feature maps (B, H, W, C) in (0, 1).

    Example:

    >>> MetaBlock()([keras.ops.ones((2, 7, 7, 16)), keras.ops.ones((2, 5))]).shape
    TensorShape([2, 7, 7, 16])
    """

    def build(self, input_shape: Any) -> None:
        features, metadata = input_shape
        self.gates = []
        for name in ("scale", "shift"):
            dense = keras.layers.Dense(features[-1], name=name, dtype=self.dtype_policy)
            norm = BatchNormalization(momentum=MOMENTUM, name=f"{name}_norm", dtype=self.dtype_policy)
            dense.build(metadata)
            norm.build((None, features[-1]))
            self.gates.append((dense, norm))
        self.built = True

    def call(self, inputs: Any, training: bool = False) -> Any:
        features, metadata = inputs
        scale, shift = (ops.expand_dims(norm(dense(metadata), training=training), (1, 2)) for dense, norm in self.gates)
        return ops.sigmoid(ops.tanh(features * scale) + shift)

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        return tuple(input_shape[0])
