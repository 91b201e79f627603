"""The loss of an auxiliary super-resolution, one value per image."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_skin.losses import register


@register("super_resolution", target="super_resolution")
@keras.saving.register_keras_serializable(package="keras_skin")
class SuperResolution(keras.losses.Loss):
    """Mean squared error between a predicted image and its target, both outputs of the model.

    Source: Khurshid et al., Sci. Rep. 2025 (DualRefNet), equation 6, over all pixels and channels of an image. The target is the
    model's augmented and preprocessed input, enlarged by the model itself.

    Args:
        **kwargs: `name` and `reduction` of `keras.losses.Loss`.

    Call arguments:
        y_true: unused, any array with a row for each image, (B, 1) from the pipeline.
        y_pred: predicted images and targets (B, 2, H, W, C) in [0, 1]. No gradient flows into the targets.

    Returns:
        Losses (B,), 0 or more, before the reduction.
    """

    def __init__(self, name: str = "super_resolution", **kwargs: Any) -> None:
        super().__init__(name=name, dtype="float32", **kwargs)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        images = ops.cast(y_pred, "float32")
        error = images[:, 0] - ops.stop_gradient(images[:, 1])
        return ops.mean(ops.square(error), axis=(1, 2, 3))

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "reduction": self.reduction}
