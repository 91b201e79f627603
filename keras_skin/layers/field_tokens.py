"""One token for each field of the metadata."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_skin")
class FieldTokens(keras.layers.Layer):
    """Projects the columns of each field and its flag (known or not) to a token, with separate weights for each field.

    Source: as the numerical and categorical tokens of Gorishniy et al. (FT-Transformer), NeurIPS 2021, section 3.3; the bias
    identifies the field.

    Args:
        widths: number of columns of each field, in their order.
        units: width of the tokens.
        **kwargs: base layer arguments.

    Call arguments:
        inputs: metadata (B, sum(widths) + len(widths)), in the layout of `KnownFields`.

    Returns:
        Tokens (B, len(widths), units).
    """

    def __init__(self, widths: Sequence[int], units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.widths = list(widths)
        self.units = units
        if not self.widths or min(*self.widths, units) < 1:
            raise ValueError(f"widths and units must be positive; they are {self.widths} and {units}.")

    def build(self, input_shape: Any) -> None:
        """Creates a kernel and a bias for each field."""
        self.projections = []
        for number, width in enumerate(self.widths, start=1):
            projection = keras.layers.Dense(self.units, name=f"field_{number}", dtype=self.dtype_policy)
            projection.build((None, width + 1))
            self.projections.append(projection)
        self.built = True

    def call(self, inputs: Any) -> Any:
        first_flag, start, tokens = sum(self.widths), 0, []
        for number, (width, projection) in enumerate(zip(self.widths, self.projections, strict=True)):
            flag = inputs[:, first_flag + number : first_flag + number + 1]
            tokens.append(projection(ops.concatenate([inputs[:, start : start + width], flag], axis=-1)))
            start += width
        return ops.stack(tokens, axis=1)

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        return (input_shape[0], len(self.widths), self.units)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "widths": self.widths, "units": self.units}
