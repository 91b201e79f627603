"""Sum of binary cross-entropy and soft Dice loss of a mask, one value per image."""

from __future__ import annotations

from typing import Any

import keras

from keras_skin.losses import register
from keras_skin.losses.binary_crossentropy import BinaryCrossentropy
from keras_skin.losses.dice import Dice


@register("dice_binary_crossentropy", target="mask", paper="002, equation 3")
@keras.saving.register_keras_serializable(package="keras_skin")
class DiceBinaryCrossentropy(keras.losses.Loss):
    """The sum of `BinaryCrossentropy` and `Dice`, from logits, in float32.

    Source: Atiq and Fattah (paper 002), equations 1 to 3. With deep supervision (equation 4) the auxiliary masks have the same
    loss, weighted 0.2 and 0.1.

    Args:
        smooth: the epsilon of equation 1, as in `Dice`; the paper does not print it.
        **kwargs: `name` and `reduction` of `keras.losses.Loss`.

    Call arguments:
        y_true: masks (B, H, W, 1) in {0, 1}.
        y_pred: logits (B, H, W, 1).

    Returns:
        Losses (B,), not negative, before the reduction.
    """

    def __init__(self, smooth: float = 1.0, name: str = "dice_binary_crossentropy", **kwargs: Any) -> None:
        super().__init__(name=name, dtype="float32", **kwargs)
        self.dice = Dice(smooth)
        self.crossentropy = BinaryCrossentropy()

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return self.crossentropy.call(y_true, y_pred) + self.dice.call(y_true, y_pred)

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "reduction": self.reduction, "smooth": self.dice.smooth}
