"""Masks that remove unknown metadata.

Metadata are rows (B, M): the columns of each field, then for each field one column that is 1 where the field is known and else 0,
as `keras_skin.data.metadata` encodes them with `missing="mask"`. Values are selected instead of multiplied, so that NaN and
infinity in an unknown field do not reach the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_skin")
class KnownFields(keras.layers.Layer):
    """Sets the columns of unknown fields to zero.

    Args:
        widths: number of columns of each field, in their order.
        **kwargs: base layer arguments.

    Call arguments:
        inputs: metadata (B, sum(widths) + len(widths)).

    Returns:
        The same, with zeros where a field is unknown; the columns at the end are exactly 0 or 1.

    Example:

    >>> KnownFields([1, 2])(keras.ops.array([[7.0, 1.0, 0.0, 0.0, 1.0]]))[0].numpy().tolist()
    [0.0, 1.0, 0.0, 0.0, 1.0]
    """

    def __init__(self, widths: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.widths = list(widths)
        if not self.widths or min(self.widths) < 1:
            raise ValueError(f"widths must be positive numbers, one for each field; they are {self.widths}.")

    def build(self, input_shape: Any) -> None:
        """Checks that the columns are those of the fields."""
        expected = sum(self.widths) + len(self.widths)
        if input_shape[-1] != expected:
            raise ValueError(f"Fields of {self.widths} columns need {expected} columns in all, got {input_shape[-1]}.")
        self.built = True

    def call(self, inputs: Any) -> Any:
        first_flag, start, blocks, flags = sum(self.widths), 0, [], []
        for number, width in enumerate(self.widths):
            is_known = inputs[:, first_flag + number : first_flag + number + 1] > 0
            block = inputs[:, start : start + width]
            blocks.append(ops.where(is_known, block, ops.zeros_like(block)))
            flags.append(ops.cast(is_known, inputs.dtype))
            start += width
        return ops.concatenate([*blocks, *flags], axis=-1)

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "widths": self.widths}


@keras.saving.register_keras_serializable(package="keras_skin")
class AvailabilityMask(keras.layers.Layer):
    """Sets features to zero in rows without any known field.

    Source: Atiq and Fattah (paper 002), equation 8: alpha E, with alpha 1 if any field is known and else 0.

    Args:
        fields: number of fields, hence of the last columns of the metadata, which tell what is known.
        **kwargs: base layer arguments.

    Call arguments:
        inputs: pair of features (B, C) and metadata (B, M).

    Returns:
        Features (B, C).
    """

    def __init__(self, fields: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if fields < 1:
            raise ValueError(f"fields must be positive; it is {fields}.")
        self.fields = fields

    def call(self, inputs: Any) -> Any:
        features, metadata = inputs
        any_known = ops.any(metadata[:, -self.fields :] > 0, axis=-1, keepdims=True)
        return ops.where(any_known, features, ops.zeros_like(features))

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        return tuple(input_shape[0])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "fields": self.fields}
