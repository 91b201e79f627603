"""Stops a training at its first loss that is not a finite number."""

from __future__ import annotations

import math
from typing import Any

import keras

from keras_skin.training.errors import NonFiniteLoss


class StopAtNonFiniteLoss(keras.callbacks.Callback):
    """Raises `NonFiniteLoss` after the step whose loss is infinite or not a number.

    Keras logs the mean loss of the epoch so far, which turns non-finite with the first such step and stays so.

    Args:
        train: the training data; where it has a method `image_ids(epoch, step)`, the message names the images of that step.
        steps: steps of an epoch.
    """

    def __init__(self, train: Any, steps: int) -> None:
        super().__init__()
        self.train = train
        self.steps = steps
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Remembers the epoch for the message."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Looks at the loss."""
        logs = logs or {}
        loss = logs.get("loss", 0.0)
        if math.isfinite(loss):
            return
        lines = [f"The loss became {loss} in epoch {self._epoch + 1}, at step {batch + 1} of {self.steps}."]
        parts = [name for name, value in logs.items() if name.endswith("_loss") and not math.isfinite(value)]
        if parts:
            lines.append(f"Not finite: {', '.join(parts)}.")
        if hasattr(self.train, "image_ids"):
            lines.append(f"Images of that step: {', '.join(map(str, self.train.image_ids(self._epoch, batch)))}.")
        lines.append(
            "Nothing after the last saved state is kept. A smaller learning rate, clipnorm, or float32 precision "
            "may help; a damaged image may be the cause, too."
        )
        raise NonFiniteLoss("\n".join(lines))
