"""Dice similarity coefficient."""

from __future__ import annotations

from typing import Any

import keras

from keras_skin.metrics import register
from keras_skin.metrics.overlap import mask_counts, ratio


@register("dsc", target="mask")
@keras.saving.register_keras_serializable(package="keras_skin")
class DSC(keras.metrics.Mean):
    """Mean over images of 2 |A and B| / (|A| + |B|), A the true and B the predicted mask (logit above 0).

    An image whose two masks are both empty scores 1.

    Example:

    >>> metric = DSC()
    >>> metric.update_state([[[[1.0], [0.0]]]], [[[[5.0], [5.0]]]])
    >>> round(float(metric.result()), 4)
    0.6667
    """

    def __init__(self, name: str = "dsc") -> None:
        super().__init__(name=name, dtype="float32")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Adds images: masks (B, H, W, 1) in {0, 1}, logits (B, H, W, 1), optional weights (B,)."""
        both, true, predicted = mask_counts(y_true, y_pred)
        super().update_state(ratio(2.0 * both, true + predicted), sample_weight)

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name}
