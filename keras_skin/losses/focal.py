"""Focal loss of the class, one value per image, with optional class weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_skin.losses import register
from keras_skin.losses.class_weights import apply_weights, check_weights

SMALLEST = 1e-7


@register("focal", target="label", paper="003, equation 2")
@keras.saving.register_keras_serializable(package="keras_skin")
class Focal(keras.losses.Loss):
    """Cross-entropy of the softmax of the logits, with less weight on images of high confidence; in float32.

    Source: Lin et al., ICCV 2017, equation 5, as equation 2 of paper 003: -alpha_t (1 - p_t)^gamma log(p_t), with p_t the
    probability of the true class.

    Args:
        gamma: focus, not negative: 0 is cross-entropy; with 2 an image of probability 0.9 has a hundredth of its weight.
        class_weights: alpha, one number per class, not negative; 1 for every class by default.
        **kwargs: `name` and `reduction` of `keras.losses.Loss`.

    Call arguments:
        y_true: one-hot classes (B, K), or shares of classes that sum to 1. Their loss is the mean of the classes' losses by these
            shares.
        y_pred: logits (B, K).

    Returns:
        Losses (B,), not negative, before the reduction.

    **Deviations from the paper**: the paper prints neither gamma nor alpha; gamma 2 is the choice of Lin et al. Their loss
    has one sigmoid per class; here, as in the paper's single-label task, p_t comes from the softmax.
    """

    def __init__(
        self, gamma: float = 2.0, class_weights: Sequence[float] | None = None, name: str = "focal", **kwargs: Any
    ) -> None:
        if gamma < 0:
            raise ValueError(f"gamma must not be negative; it is {gamma}.")
        class_weights = check_weights(class_weights)
        super().__init__(name=name, dtype="float32", **kwargs)
        self.gamma = float(gamma)
        self.class_weights = class_weights

    def call(self, y_true: Any, y_pred: Any) -> Any:
        log_probability = ops.log_softmax(ops.cast(y_pred, "float32"), axis=-1)
        # expm1 keeps the digits of 1 - p for p near 1; the bound keeps the slope of its power finite at p = 1.
        doubt = ops.maximum(-ops.expm1(log_probability), SMALLEST)
        target = apply_weights(ops.cast(y_true, "float32"), self.class_weights)
        return -ops.sum(target * doubt**self.gamma * log_probability, axis=-1)

    def get_config(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "reduction": self.reduction,
            "gamma": self.gamma,
            "class_weights": self.class_weights,
        }
