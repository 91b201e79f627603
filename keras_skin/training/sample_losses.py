"""The loss of every single training image, for a sampler that goes by it."""

from __future__ import annotations

from typing import Any, Protocol

import keras
import numpy as np
from keras import ops


class SampleLosses(keras.metrics.Metric):
    """Keeps the losses of single images in the order in which they are shown, since it was last reset.

    It is a metric, so that it works within the compiled step on every backend, and so that the run state holds what it has
    recorded. It shows nothing in the logs. What does not fit any more (a validation part larger than `samples`) is counted only.

    Args:
        loss: the loss of one output, with one value per image before the reduction; the mean over further axes is taken.
        samples: number of values kept.
        weight: multiplies the loss.

    Attributes:
        losses: variable, (samples,) float32.
        recorded: variable, int32, the number of images since the last reset.
    """

    def __init__(self, loss: keras.losses.Loss, samples: int, weight: float = 1.0, name: str = "sample_losses") -> None:
        super().__init__(name=name, dtype="float32")
        self.loss = loss
        self.samples = samples
        self.weight = weight
        self.losses = self.add_variable((samples,), initializer="zeros", name="losses")
        self.recorded = self.add_variable((), initializer="zeros", dtype="int32", name="recorded")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Keeps the losses of a batch. Weights of samples are ignored: difficulty is what the model finds hard."""
        losses = ops.cast(self.loss.call(y_true, y_pred), "float32")
        losses = self.weight * ops.mean(ops.reshape(losses, (ops.shape(losses)[0], -1)), axis=1)
        count = ops.cast(ops.shape(losses)[0], "int32")
        # A gather, since a scatter beyond the end is an error on some backends.
        place = ops.arange(self.samples, dtype="int32") - self.recorded
        present = ops.logical_and(place >= 0, place < count)
        new = ops.take(losses, ops.clip(place, 0, count - 1), axis=0)
        self.losses.assign(ops.where(present, new, ops.convert_to_tensor(self.losses)))
        self.recorded.assign_add(count)

    def result(self) -> dict[str, Any]:
        """Nothing: Keras puts no entry into the logs for an empty dictionary."""
        return {}


class Receiver(Protocol):
    """What learns from the losses of single images, such as a curriculum."""

    def record(self, epoch: int, rows: np.ndarray, losses: np.ndarray) -> None:
        """Takes the (M,) rows that an epoch has shown, with repeats, and the loss of each."""

    def get_state(self) -> dict[str, Any]:
        """JSON values."""

    def set_state(self, state: dict[str, Any]) -> None:
        """Continues from `get_state`."""


class ShownRows(Protocol):
    """What is needed of the training data."""

    steps: int

    def rows(self, epoch: int) -> np.ndarray:
        """(M,) rows of the training table that an epoch shows, in its order."""


class SampleLossFeedback(keras.callbacks.Callback):
    """Tells a sampler after each epoch what the loss of every image was: the weighted sum over the model's outputs.

    The losses are those of the training itself, of the augmented images and under the weights of their step; no image is shown
    for the sake of its loss. Where batches are mixed, the loss of a mixture counts for the first of its images. They are read at
    the end of the last training step, since validation uses the metrics next. The receiver's state becomes part of the run state.

    Use: make it before compiling, add `metric(loss, weight)` to the metrics of every output that has a loss, and give it to `fit`
    as a callback. An epoch must show its samples on one device.

    Args:
        receiver: gets the losses.
        train: the training data.
    """

    def __init__(self, receiver: Receiver, train: ShownRows) -> None:
        super().__init__()
        self.receiver = receiver
        self.train = train
        self._samples = len(train.rows(0))
        self._metrics: list[SampleLosses] = []
        self._epoch = 0

    def metric(self, loss: keras.losses.Loss, weight: float = 1.0) -> SampleLosses:
        """A new metric for an output with that loss; its values enter the sum with that weight."""
        self._metrics.append(SampleLosses(loss, self._samples, weight))
        return self._metrics[-1]

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Remembers the epoch."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Passes on the losses after the last step of an epoch."""
        if batch + 1 < self.train.steps:
            return
        rows = self.train.rows(self._epoch)
        recorded = {int(ops.convert_to_numpy(metric.recorded)) for metric in self._synchronized()}
        if recorded != {len(rows)} or len(rows) > self._samples:
            raise RuntimeError(
                f"Epoch {self._epoch + 1} showed {len(rows)} samples, of which {sorted(recorded)} losses were recorded."
            )
        losses = sum(ops.convert_to_numpy(metric.losses).astype(np.float64) for metric in self._metrics)
        self.receiver.record(self._epoch, rows, losses[: len(rows)])

    def get_state(self) -> dict[str, Any]:
        """The receiver's state."""
        return self.receiver.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        """Passes a state on to the receiver."""
        self.receiver.set_state(state)

    def _synchronized(self) -> list[SampleLosses]:
        """The metrics, up to date: on JAX the variables are, once a callback has asked for its model."""
        assert self.model is not None
        return self._metrics
