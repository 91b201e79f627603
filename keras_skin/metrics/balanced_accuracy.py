"""Share of correctly classified images of each class, averaged over the classes."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_skin.metrics import register


@register("balanced_accuracy", target="label")
@keras.saving.register_keras_serializable(package="keras_skin")
class BalancedAccuracy(keras.metrics.Metric):
    """Mean recall over the classes that occur, from logits; as scikit-learn's `balanced_accuracy_score`.

    The mean excludes classes without images; without any image the result is 0. Of equal logits the first counts.
    """

    def __init__(self, name: str = "balanced_accuracy") -> None:
        super().__init__(name=name, dtype="float32")
        self._built = False

    def _build(self, classes: int) -> None:
        self.images = self.add_variable((classes,), initializer="zeros", name="images")
        self.right = self.add_variable((classes,), initializer="zeros", name="right")
        self._built = True

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Adds images: one-hot classes (B, K), logits (B, K), optional weights (B,)."""
        y_true, y_pred = ops.convert_to_tensor(y_true, "float32"), ops.convert_to_tensor(y_pred)
        if not self._built:
            self._build(y_true.shape[-1])
        if sample_weight is not None:
            y_true = y_true * ops.reshape(ops.cast(sample_weight, "float32"), (-1, 1))
        predicted = ops.one_hot(ops.argmax(y_pred, axis=-1), y_pred.shape[-1], dtype="float32")
        self.images.assign_add(ops.sum(y_true, axis=0))
        self.right.assign_add(ops.sum(y_true * predicted, axis=0))

    def result(self) -> Any:
        """Returns the mean recall, a float32 scalar."""
        if not self._built:
            return ops.zeros((), "float32")
        occurs = ops.cast(self.images > 0, "float32")
        recall = self.right / ops.maximum(self.images, 1e-12)
        return ops.sum(recall) / ops.maximum(ops.sum(occurs), 1.0)

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name}
