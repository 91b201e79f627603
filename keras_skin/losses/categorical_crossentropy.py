"""Cross-entropy of the class, one value per image, with optional class weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_skin.losses import register
from keras_skin.losses.class_weights import apply_weights, check_weights


@register("categorical_crossentropy", target="label")
@keras.saving.register_keras_serializable(package="keras_skin")
class CategoricalCrossentropy(keras.losses.Loss):
    """Cross-entropy of the softmax of the logits, in float32.

    Source: Al-masni et al., Bioengineering 2024, 11, 1173, equation 3 (L_BCE): for two classes this is the binary cross-entropy
    of the difference of the two logits.

    Args:
        class_weights: one number per class, not negative, the factor of the loss of images of that class; none by default.
            Unlike the argument `class_weight` of Keras' `fit`, they work for one of several outputs.
        label_smoothing: share of the target, in [0, 1), that is spread evenly over the classes.
        **kwargs: `name` and `reduction` of `keras.losses.Loss`.

    Call arguments:
        y_true: one-hot classes (B, K), or shares of classes that sum to 1, as from mixup. Their loss is the mean of the classes'
            weighted losses by these shares.
        y_pred: logits (B, K).

    Returns:
        Losses (B,), not negative, before the reduction.
    """

    def __init__(
        self,
        class_weights: Sequence[float] | None = None,
        label_smoothing: float = 0.0,
        name: str = "categorical_crossentropy",
        **kwargs: Any,
    ) -> None:
        class_weights = check_weights(class_weights)
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1); it is {label_smoothing}.")
        super().__init__(name=name, dtype="float32", **kwargs)
        self.class_weights = class_weights
        self.label_smoothing = label_smoothing

    def call(self, y_true: Any, y_pred: Any) -> Any:
        y_true = ops.cast(y_true, "float32")
        classes = y_true.shape[-1]
        y_pred = ops.cast(y_pred, "float32")
        smoothing = self.label_smoothing
        if self.class_weights is None:
            return ops.categorical_crossentropy(y_true * (1.0 - smoothing) + smoothing / classes, y_pred, from_logits=True)
        y_true = apply_weights(y_true, self.class_weights)
        target = y_true * (1.0 - smoothing) + ops.sum(y_true, axis=-1, keepdims=True) * (smoothing / classes)
        # Not ops.categorical_crossentropy, whose gradient assumes targets that sum to 1.
        return -ops.sum(target * ops.log_softmax(y_pred, axis=-1), axis=-1)

    def get_config(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "reduction": self.reduction,
            "class_weights": self.class_weights,
            "label_smoothing": self.label_smoothing,
        }
