"""Share of correctly classified images."""

from __future__ import annotations

from typing import Any

import keras

from keras_skin.metrics import register


@register("accuracy", target="label")
@keras.saving.register_keras_serializable(package="keras_skin")
class Accuracy(keras.metrics.CategoricalAccuracy):
    """Share of images whose largest logit (B, K) is that of the true class (one-hot, B, K)."""

    def __init__(self, name: str = "accuracy") -> None:
        super().__init__(name=name, dtype="float32")

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name}
