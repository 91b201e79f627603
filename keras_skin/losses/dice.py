"""Soft Dice loss, one value per image."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_skin.losses import register


@register("dice", target="mask")
@keras.saving.register_keras_serializable(package="keras_skin")
class Dice(keras.losses.Loss):
    """One minus the soft Dice coefficient of each image's mask, from logits.

    Source: Al-masni et al., Bioengineering 2024, 11, 1173, equation 3 (L_Dice), which names the loss without its formula. This is
    the common one, with p = sigmoid(logits):

        1 - (2 sum(p y) + smooth) / (sum(p) + sum(y) + smooth)

    The sums run over the pixels of one image, so that a small lesion counts as much as a large one (`keras.losses.Dice` pools the
    batch by default). They are float32, because a sum over 512x512 pixels exceeds float16.

    Args:
        smooth: positive number of pixels that keeps the loss of an empty mask finite: it is 0 for an empty prediction and
            approaches 1 for a large one.
        **kwargs: `name` and `reduction` of `keras.losses.Loss`.

    Call arguments:
        y_true: masks (B, H, W, 1) in {0, 1}.
        y_pred: logits (B, H, W, 1).

    Returns:
        Losses (B,) between 0 and 1 before the reduction.
    """

    def __init__(self, smooth: float = 1.0, name: str = "dice", **kwargs: Any) -> None:
        if smooth <= 0:
            raise ValueError(f"smooth must be positive; it is {smooth}.")
        super().__init__(name=name, dtype="float32", **kwargs)
        self.smooth = smooth

    def call(self, y_true: Any, y_pred: Any) -> Any:
        y_true = ops.cast(y_true, "float32")
        probability = ops.sigmoid(ops.cast(y_pred, "float32"))
        axes = (1, 2, 3)
        overlap = ops.sum(probability * y_true, axis=axes)
        total = ops.sum(probability, axis=axes) + ops.sum(y_true, axis=axes)
        return 1.0 - (2.0 * overlap + self.smooth) / (total + self.smooth)

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "reduction": self.reduction, "smooth": self.smooth}
