"""Callbacks over a training in which every epoch is one call of `model.fit`."""

from __future__ import annotations

from typing import Any

import keras


class EpochCallbacks(keras.callbacks.CallbackList):
    """A callback list that outlives single calls of `model.fit`.

    `model.fit` uses a `CallbackList` that it is given as it is. This one tells its callbacks of the begin and end of the training
    only once, and counts the steps of an epoch that was taken up in its middle from there, so that callbacks see the training
    that an undisturbed `model.fit` over all epochs would have shown them.

    Attributes:
        first_step: steps of the coming epoch that were already done before.
        steps_seen: steps done of the present epoch, `first_step` included.
    """

    def __init__(self, callbacks: list[keras.callbacks.Callback], model: keras.Model, epochs: int, steps: int) -> None:
        super().__init__(callbacks, add_history=True, model=model, verbose=0, epochs=epochs, steps=steps)
        self.first_step = 0
        self.steps_seen = 0

    def begin_training(self) -> None:
        """Calls `on_train_begin` of every callback."""
        super().on_train_begin()

    def end_training(self) -> None:
        """Calls `on_train_end` of every callback."""
        super().on_train_end()

    def on_train_begin(self, logs: Any = None) -> None:
        """Nothing: the training began before this epoch."""

    def on_train_end(self, logs: Any = None) -> None:
        """Nothing: the training does not end with this epoch."""

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Passes on the begin of an epoch."""
        self.steps_seen = self.first_step
        super().on_epoch_begin(epoch, logs)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Passes on the begin of a step, numbered within the whole epoch."""
        super().on_train_batch_begin(self.first_step + batch, logs)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Passes on the end of a step, numbered within the whole epoch."""
        self.steps_seen = self.first_step + batch + 1
        super().on_train_batch_end(self.first_step + batch, logs)
