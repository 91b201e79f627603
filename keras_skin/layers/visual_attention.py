"""Visual attention: the deepest features attend to the finer ones, and metadata weight the deepest features."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras
from keras import ops

from keras_skin.layers.batch_normalization import BatchNormalization
from keras_skin.layers.conv_block import MOMENTUM


@keras.saving.register_keras_serializable(package="keras_skin")
class VisualAttention(keras.layers.Layer):
    """Averages a feature map by the softmax of each position's product with the query, projected to the query's width.

    Source: Pundhir et al., "Visually Aware Metadata-Guided Supervision for Improved Skin Lesion Classification Using Deep
    Learning", 2022; the attention is that of Jetley et al., "Learn to pay attention", ICLR 2018, with dot products. The
    projection is a 1x1 convolution without bias. It is linear, so the layer projects query and average instead of every
    position: the same result without a map of the query's width.

    Call arguments:
        inputs: pair of feature maps (B, H, W, C) and query (B, D).

    Returns:
        The attended features (B, D).
    """

    def build(self, input_shape: Any) -> None:
        features, query = input_shape
        self.kernel = self.add_weight((features[-1], query[-1]), initializer="glorot_uniform", name="kernel")

    def call(self, inputs: Any) -> Any:
        features, query = inputs
        positions = ops.reshape(features, (-1, features.shape[1] * features.shape[2], features.shape[3]))
        kernel = ops.cast(self.kernel, positions.dtype)
        scores = ops.einsum("bpc,bc->bp", positions, ops.matmul(query, ops.transpose(kernel)))
        weights = ops.softmax(ops.cast(scores, "float32"))
        attended = ops.einsum("bp,bpc->bc", ops.cast(weights, positions.dtype), positions)
        return ops.matmul(attended, kernel)

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        return tuple(input_shape[1])


def visual_attention(levels: Iterable[Any], pooled: Any, metadata: Any, name: str = "visual_attention") -> Any:
    """Concatenates the attended finer levels and the deepest features, weighted by the metadata.

    Source: Pundhir et al., 2022 (see `VisualAttention`): metadata pass through dense layers of 512 units and of the features'
    width, each with batch normalisation and ReLU, and dropout of 0.2 between.

    Args:
        levels: finer feature maps, symbolic (B, H, W, C); in the source those of stride 4, 8 and 16.
        pooled: the averaged deepest features (B, D), which are the query.
        metadata: encoded metadata (B, M).
        name: prefix of the layers.

    Returns:
        Symbolic tensor (B, (levels + 1) D).
    """
    x = metadata
    for number, width in enumerate((512, pooled.shape[-1]), start=1):
        if number > 1:
            x = keras.layers.Dropout(0.2, name=f"{name}_dropout")(x)
        x = keras.layers.Dense(width, kernel_initializer="he_normal", name=f"{name}_metadata_{number}_dense")(x)
        x = BatchNormalization(momentum=MOMENTUM, name=f"{name}_metadata_{number}_norm")(x)
        x = keras.layers.ReLU(name=f"{name}_metadata_{number}")(x)
    tensors = [VisualAttention(name=f"{name}_{number}")([level, pooled]) for number, level in enumerate(levels, start=1)]
    tensors.append(keras.layers.Multiply(name=f"{name}_guided")([pooled, x]))
    return keras.layers.Concatenate(name=name)(tensors)
