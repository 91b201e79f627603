"""The overlap of two masks of each image, for DSC and IoU."""

from __future__ import annotations

from typing import Any

from keras import ops


def mask_counts(y_true: Any, y_pred: Any) -> tuple[Any, Any, Any]:
    """Counts the pixels of the intersection, of the true and of the predicted mask of each image.

    Args:
        y_true: masks (B, H, W, 1) in {0, 1}.
        y_pred: logits (B, H, W, 1); the predicted mask is where they are above 0, a probability of 0.5.

    Returns:
        Three tensors (B,), float32.
    """
    true = ops.cast(ops.cast(y_true, "float32") > 0.5, "float32")
    predicted = ops.cast(ops.cast(y_pred, "float32") > 0.0, "float32")
    axes = (1, 2, 3)
    return ops.sum(true * predicted, axis=axes), ops.sum(true, axis=axes), ops.sum(predicted, axis=axes)


def ratio(numerator: Any, denominator: Any) -> Any:
    """Returns the quotient, and 1 where both are 0, as for an empty mask that is predicted empty."""
    return ops.where(denominator > 0, numerator / ops.maximum(denominator, 1.0), 1.0)
