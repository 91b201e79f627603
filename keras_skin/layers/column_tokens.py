"""One token for each column of a table."""

from __future__ import annotations

from typing import Any

import keras


@keras.saving.register_keras_serializable(package="keras_skin")
class ColumnTokens(keras.layers.Layer):
    """Turns each number of a row into a vector: the number times a learnt vector of its column.

    Source: Gorishniy et al., "Revisiting Deep Learning Models for Tabular Data", NeurIPS 2021, section 3.3, without the bias,
    which `ClassToken` adds as the column's position.

    Args:
        features: width of a token.
        **kwargs: base layer arguments.

    Call arguments:
        inputs: rows (B, M).

    Returns:
        Tokens (B, M, features).

    Example:

    >>> ColumnTokens(8)(keras.ops.ones((2, 5))).shape
    TensorShape([2, 5, 8])
    """

    def __init__(self, features: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.features = features

    def build(self, input_shape: Any) -> None:
        uniform = keras.initializers.RandomUniform(-(self.features**-0.5), self.features**-0.5)
        self.vectors = self.add_weight((input_shape[-1], self.features), initializer=uniform, name="vectors")

    def call(self, inputs: Any) -> Any:
        return inputs[:, :, None] * keras.ops.cast(self.vectors, inputs.dtype)

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        return (*input_shape, self.features)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "features": self.features}
