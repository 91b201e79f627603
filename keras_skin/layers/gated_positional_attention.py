"""Self-attention of ConViT: of contents alone, or gated with an attention of positions that starts as a convolution."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops


@keras.saving.register_keras_serializable(package="keras_skin")
class PositionEmbedding(keras.layers.Layer):
    """Adds a learnt vector to every position of a sequence (B, N, C) with N fixed.

    Example:

    >>> PositionEmbedding()(keras.ops.ones((2, 4, 8))).shape
    TensorShape([2, 4, 8])
    """

    def build(self, input_shape: Any) -> None:
        """Creates N vectors."""
        normal = keras.initializers.TruncatedNormal(stddev=0.02)
        self.positions = self.add_weight(tuple(input_shape[1:]), initializer=normal, name="positions")

    def call(self, inputs: Any) -> Any:
        """Returns tokens (B, N, C)."""
        return inputs + ops.cast(self.positions, inputs.dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """As the inputs."""
        return input_shape


@keras.saving.register_keras_serializable(package="keras_skin")
class ContentAttention(keras.layers.Layer):
    """Multi-head self-attention whose queries, keys and values have no bias, as the last blocks of ConViT have it.

    Source: d'Ascoli et al., "ConViT: Improving Vision Transformers with Soft Convolutional Inductive Biases", ICML 2021,
    equation 2.

    Args:
        heads: number of attention heads; divides the number of features.
        **kwargs: base layer arguments.

    Call arguments:
        inputs: tokens (B, N, C).

    Returns:
        Tokens (B, N, C).
    """

    value_initializer = "glorot_uniform"

    def __init__(self, heads: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.heads = heads

    def build(self, input_shape: Any) -> None:
        """Creates the projections; raises a ValueError if the heads do not divide the features."""
        features = input_shape[-1]
        if features % self.heads:
            raise ValueError(f"{features} features cannot be divided among {self.heads} heads.")

        def dense(units: int, name: str, **arguments: Any) -> keras.layers.Dense:
            layer = keras.layers.Dense(units, dtype=self.dtype_policy, name=name, **arguments)
            layer.build((None, features))
            return layer

        self.query_key = dense(2 * features, "query_key", use_bias=False)
        self.value = dense(features, "value", use_bias=False, kernel_initializer=self.value_initializer)
        self.projection = dense(features, "projection")

    def call(self, inputs: Any) -> Any:
        """Returns tokens (B, N, C)."""
        _, count, features = inputs.shape
        depth = features // self.heads
        pairs = ops.reshape(self.query_key(inputs), (-1, count, 2, self.heads, depth))
        query, key = ops.unstack(ops.transpose(pairs, (2, 0, 3, 1, 4)), axis=0)
        value = ops.transpose(ops.reshape(self.value(inputs), (-1, count, self.heads, depth)), (0, 2, 1, 3))
        logits = ops.matmul(query * depth**-0.5, ops.swapaxes(key, -1, -2))
        weights = self.attention(ops.softmax(ops.cast(logits, "float32")))
        x = ops.matmul(ops.cast(weights, value.dtype), value)
        return self.projection(ops.reshape(ops.swapaxes(x, 1, 2), (-1, count, features)))

    def attention(self, contents: Any) -> Any:
        """Returns the attention weights (B, heads, N, N), from those of the contents."""
        return contents

    def compute_output_shape(self, input_shape: Any) -> Any:
        """As the inputs."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """The layer's arguments."""
        return {**super().get_config(), "heads": self.heads}


@keras.saving.register_keras_serializable(package="keras_skin")
class GatedPositionalAttention(ContentAttention):
    """Gated positional self-attention: (1 - sigmoid(gate)) content attention + sigmoid(gate) positional attention, per head.

    Source: d'Ascoli et al., ICML 2021, equations 6 and 7. It starts as a convolution: with k^2 heads, head h attends to the
    position at its own offset of a k x k kernel, the values are passed on unchanged, and the gates are at 1 (equation 5).
    Heads beyond k^2 start with random positions.

    Args:
        heads: number of attention heads; divides the number of features.
        grid: height and width of the tokens' grid.
        locality: strength of the initial locality, alpha of equation 5; 1 in ConViT.
        **kwargs: base layer arguments.

    Call arguments:
        inputs: tokens (B, N, C), N the grid's positions row by row.

    Returns:
        Tokens (B, N, C).

    Example:

    >>> GatedPositionalAttention(heads=4, grid=(2, 3))(keras.ops.ones((2, 6, 8))).shape
    TensorShape([2, 6, 8])
    """

    value_initializer = "identity"

    def __init__(self, heads: int, grid: tuple[int, int], locality: float = 1.0, **kwargs: Any) -> None:
        super().__init__(heads, **kwargs)
        self.grid, self.locality = (int(grid[0]), int(grid[1])), locality

    def build(self, input_shape: Any) -> None:
        """Creates projections, positional weights and gates."""
        super().build(input_shape)
        self.offsets = _offsets(self.grid)
        self.positional = keras.layers.Dense(
            self.heads, kernel_initializer=self._local_initializer, dtype="float32", name="positional"
        )
        self.positional.build((None, 3))
        self.gate = self.add_weight((self.heads,), initializer="ones", name="gate", dtype="float32")

    def attention(self, contents: Any) -> Any:
        """Returns the attention weights (B, heads, N, N), from those of the contents."""
        positions = ops.softmax(ops.transpose(self.positional(self.offsets), (2, 0, 1)))
        gate = ops.sigmoid(ops.cast(self.gate, "float32"))[:, None, None]
        return (1 - gate) * contents + gate * positions

    def _local_initializer(self, shape: Any, dtype: Any = None) -> Any:
        """(3, heads): weights of dx, dy and the squared distance with which head h attends to its own offset."""
        kernel = ops.convert_to_numpy(keras.initializers.TruncatedNormal(stddev=0.02)(shape, dtype)).copy()
        side = int(self.heads**0.5)
        centre = (side - 1) / 2
        for head in range(side**2):
            row, column = head % side, head // side
            kernel[:, head] = (2 * (column - centre), 2 * (row - centre), -1)
        kernel[:, : side**2] *= self.locality
        return ops.convert_to_tensor(kernel, dtype)

    def get_config(self) -> dict[str, Any]:
        """The layer's arguments."""
        return {**super().get_config(), "grid": self.grid, "locality": self.locality}


def _offsets(grid: tuple[int, int]) -> np.ndarray:
    """(N, N, 3): dx, dy and dx^2 + dy^2 from each position (first axis) to each other one."""
    y, x = (axis.ravel() for axis in np.indices(grid))
    dx, dy = x[None] - x[:, None], y[None] - y[:, None]
    return np.stack([dx, dy, dx**2 + dy**2], axis=-1).astype("float32")
