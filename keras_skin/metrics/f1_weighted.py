"""F1 score, averaged over classes by their number of images."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_skin.metrics import register


@register("f1_weighted", target="label")
@keras.saving.register_keras_serializable(package="keras_skin")
class F1Weighted(keras.metrics.F1Score):
    """F1 of each class, weighted by the class's share of the true labels, from logits.

    Source: Al-masni et al., Bioengineering 2024, 11, 1173, section 3.5 ("weighted measurements"). `keras.metrics.F1Score`
    predicts every class with the largest value, so equal logits count twice and zeros not at all; here only the first of them is
    predicted.
    """

    def __init__(self, name: str = "f1_weighted") -> None:
        super().__init__(average="weighted", name=name, dtype="float32")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Adds images: one-hot classes (B, K), logits (B, K), optional weights (B,)."""
        y_pred = ops.convert_to_tensor(y_pred)
        predicted = ops.one_hot(ops.argmax(y_pred, axis=-1), y_pred.shape[-1], dtype="float32")
        super().update_state(y_true, predicted, sample_weight)

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name}
