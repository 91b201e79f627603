"""Area under the receiver operating characteristic."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_skin.metrics import register

# Evenly spaced logits: over-confident models have most probabilities within 0.01 of 0 and 1, between evenly spaced probability
# thresholds.
_THRESHOLDS = np.concatenate([[-np.inf], np.linspace(-16.0, 16.0, 641), [np.inf]]).astype("float32")


@register("auc", target="label")
@keras.saving.register_keras_serializable(package="keras_skin")
class AUC(keras.metrics.Metric):
    """Area under the ROC curve from logits: of class 1 for two classes, else the mean over classes of one against the rest.

    The curve has 641 log-odds thresholds from -16 to 16, joined by straight lines, which is exact for images whose log-odds
    differ by more than 0.05. The mean excludes classes without images and classes with all images, which `keras.metrics.AUC`
    counts as 0. Without any class the result is 0.
    """

    def __init__(self, name: str = "auc") -> None:
        super().__init__(name=name, dtype="float32")
        self._built = False

    def _build(self, columns: int) -> None:
        shape = (len(_THRESHOLDS), columns)
        self.positives = self.add_variable(shape, initializer="zeros", name="positives")
        self.negatives = self.add_variable(shape, initializer="zeros", name="negatives")
        self._built = True

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Adds images: one-hot classes (B, K), logits (B, K), optional weights (B,)."""
        y_true = ops.convert_to_tensor(y_true, "float32")
        log_odds = _log_odds(ops.convert_to_tensor(y_pred, "float32"))
        if y_true.shape[-1] == 2:
            y_true, log_odds = y_true[:, 1:], log_odds[:, 1:]
        if not self._built:
            self._build(y_true.shape[-1])
        weights = ops.ones_like(y_true[:, :1])
        if sample_weight is not None:
            weights = weights * ops.reshape(ops.cast(sample_weight, "float32"), (-1, 1))
        above = ops.cast(log_odds[:, None, :] > _THRESHOLDS[None, :, None], "float32")
        self.positives.assign_add(ops.sum(above * (weights * y_true)[:, None, :], axis=0))
        self.negatives.assign_add(ops.sum(above * (weights * (1.0 - y_true))[:, None, :], axis=0))

    def result(self) -> Any:
        """Returns the area, a float32 scalar."""
        if not self._built:
            return ops.zeros((), "float32")
        sensitivity = self.positives / ops.maximum(self.positives[:1], 1e-12)
        false_alarms = self.negatives / ops.maximum(self.negatives[:1], 1e-12)
        area = ops.sum((false_alarms[:-1] - false_alarms[1:]) * (sensitivity[:-1] + sensitivity[1:]) / 2.0, axis=0)
        defined = ops.cast(ops.logical_and(self.positives[0] > 0, self.negatives[0] > 0), "float32")
        return ops.sum(area * defined) / ops.maximum(ops.sum(defined), 1.0)

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name}


def _log_odds(logits: Any) -> Any:
    """Returns log(p / (1 - p)) of every class's softmax probability p, (B, K), without the rounding of p to 0 or 1."""
    classes = logits.shape[-1]
    others = ops.where(np.eye(classes, dtype=bool)[None], -np.inf, logits[:, None, :])
    return logits - ops.logsumexp(others, axis=-1)
