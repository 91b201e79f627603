"""Stops a training at its first non-finite loss."""

from __future__ import annotations

import math
from typing import Any

import keras

from keras_skin.training.errors import NonFiniteLoss


class StopAtNonFiniteLoss(keras.callbacks.Callback):
    """Raises `NonFiniteLoss` after the step whose loss is infinite or not a number.

    Keras logs the mean loss of the epoch so far, which is non-finite from the first such step on.

    Args:
        train: the training data; if it has a method `image_ids(epoch, step)`, the message names the images of that step.
        steps: steps of an epoch.
    """

    def __init__(self, train: Any, steps: int) -> None:
        super().__init__()
        self.train = train
        self.steps = steps
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        logs = logs or {}
        loss = logs.get("loss", 0.0)
        if math.isfinite(loss):
            return
        lines = [f"The loss became {loss} in epoch {self._epoch + 1}, at step {batch + 1} of {self.steps}."]
        names = [name for name, value in logs.items() if name.endswith("_loss") and not math.isfinite(value)]
        if names:
            lines.append(f"Not finite: {', '.join(names)}.")
        if hasattr(self.train, "image_ids"):
            lines.append(f"Images of that step: {', '.join(map(str, self.train.image_ids(self._epoch, batch)))}.")
        lines.append(
            "Steps after the last saved state are lost. Try a smaller learning rate, clipnorm or float32 precision, and check "
            "these images for damage."
        )
        raise NonFiniteLoss("\n".join(lines))
