"""The class token and the positions of a vision transformer."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_skin")
class ClassToken(keras.layers.Layer):
    """Puts a learnt token before a sequence and adds a learnt vector to every position.

    Source: Dosovitskiy et al., ICLR 2021, equation 1. Call arguments: tokens (B, N, C) with N fixed. Returns (B, N + 1, C).

    Args:
        positions: whether positions are added; False where the tokens have theirs already.
        **kwargs: base layer arguments.

    Example:

    >>> ClassToken()(keras.ops.ones((2, 4, 8))).shape
    TensorShape([2, 5, 8])
    """

    def __init__(self, positions: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.has_positions = positions

    def build(self, input_shape: Any) -> None:
        """Creates the token and N + 1 positions, with the initial values of KerasHub's ViT."""
        _, count, features = input_shape
        self.token = self.add_weight((1, 1, features), initializer="random_normal", name="token")
        if self.has_positions:
            normal = keras.initializers.RandomNormal(stddev=0.02)
            self.positions = self.add_weight((count + 1, features), initializer=normal, name="positions")

    def call(self, inputs: Any) -> Any:
        """Returns tokens (B, N + 1, C), the class token first."""
        token = ops.tile(ops.cast(self.token, inputs.dtype), (ops.shape(inputs)[0], 1, 1))
        tokens = ops.concatenate([token, inputs], axis=1)
        return tokens + ops.cast(self.positions, inputs.dtype) if self.has_positions else tokens

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """(B, N + 1, C)."""
        batch, count, features = input_shape
        return (batch, count + 1, features)

    def get_config(self) -> dict[str, Any]:
        """The layer's arguments."""
        return {**super().get_config(), "positions": self.has_positions}
