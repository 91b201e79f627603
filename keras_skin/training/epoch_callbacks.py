"""Callbacks of a training in which every epoch is one call of `model.fit`."""

from __future__ import annotations

from typing import Any

import keras


class EpochCallbacks(keras.callbacks.CallbackList):
    """A callback list that lasts for several calls of `model.fit`.

    `model.fit` uses a `CallbackList` unchanged. This one announces the start and end of the training only once, and numbers the
    steps of an epoch that resumes in its middle from there. So the callbacks get the same calls as from a single `model.fit` over
    all epochs.

    Attributes:
        first_step: steps of the next epoch that were done before the resume.
        steps_seen: steps done of the current epoch, including `first_step`.
    """

    def __init__(self, callbacks: list[keras.callbacks.Callback], model: keras.Model, epochs: int, steps: int) -> None:
        super().__init__(callbacks, add_history=True, model=model, verbose=0, epochs=epochs, steps=steps)
        self.first_step = 0
        self.steps_seen = 0

    def begin_training(self) -> None:
        super().on_train_begin()

    def end_training(self) -> None:
        super().on_train_end()

    def on_train_begin(self, logs: Any = None) -> None:
        """Does nothing: the training started before this epoch."""

    def on_train_end(self, logs: Any = None) -> None:
        """Does nothing: the training does not end with this epoch."""

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.steps_seen = self.first_step
        super().on_epoch_begin(epoch, logs)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Numbers the step within the whole epoch."""
        super().on_train_batch_begin(self.first_step + batch, logs)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Numbers the step within the whole epoch."""
        self.steps_seen = self.first_step + batch + 1
        super().on_train_batch_end(self.first_step + batch, logs)
