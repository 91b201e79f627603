"""A shift of the class logits that validation sees and training does not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np


class ValidationShift(keras.Model):
    """A model of the same layers and weights that adds a constant to the output `label` outside training.

    Losses and metrics of the validation are then those of the shifted logits, so that the best epoch is chosen by them.

    Args:
        model: functional model with outputs by name.
        shift: of each class's logit.
    """

    def __init__(self, model: keras.Model, shift: Sequence[float]) -> None:
        super().__init__(model.input, model.output, name=model.name)
        self._shift = np.asarray(shift, np.float32)

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        outputs = super().call(inputs, training=training, mask=mask)
        return outputs if training else {**outputs, "label": outputs["label"] + self._shift}
