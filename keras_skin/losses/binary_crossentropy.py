"""Binary cross-entropy of a mask, one value per image."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_skin.losses import register


@register("binary_crossentropy", target="mask")
@keras.saving.register_keras_serializable(package="keras_skin")
class BinaryCrossentropy(keras.losses.Loss):
    """Mean over the pixels of each image of the binary cross-entropy, from logits, in float32.

    Args:
        **kwargs: `name` and `reduction` of `keras.losses.Loss`.

    Call arguments:
        y_true: masks (B, H, W, 1) in {0, 1}.
        y_pred: logits (B, H, W, 1).

    Returns:
        Losses (B,), not negative, before the reduction.
    """

    def __init__(self, name: str = "binary_crossentropy", **kwargs: Any) -> None:
        super().__init__(name=name, dtype="float32", **kwargs)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        pixels = ops.binary_crossentropy(ops.cast(y_true, "float32"), ops.cast(y_pred, "float32"), from_logits=True)
        return ops.mean(pixels, axis=(1, 2, 3))

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "reduction": self.reduction}
