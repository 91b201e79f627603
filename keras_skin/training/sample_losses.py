"""Records the loss of every training image, for samplers that depend on it."""

from __future__ import annotations

from typing import Any, Protocol

import keras
import numpy as np
from keras import ops


class SampleLosses(keras.metrics.Metric):
    """Records the losses of single images in the order of the samples, since the last reset.

    It is a metric, so that it works within the compiled step on every backend and its values are part of the run state. It has no
    entry in the logs. Samples beyond the first `samples`, as in a larger validation split, are only counted.

    Args:
        loss: the loss of one output, with one value per image before the reduction; further axes are averaged.
        samples: number of recorded values.
        weight: factor of the loss.

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
        """Records the losses of a batch. Sample weights are ignored, because they do not make an image harder."""
        losses = ops.cast(self.loss.call(y_true, y_pred), "float32")
        losses = self.weight * ops.mean(ops.reshape(losses, (ops.shape(losses)[0], -1)), axis=1)
        count = ops.cast(ops.shape(losses)[0], "int32")
        # A gather, because a scatter beyond the end is an error on some backends.
        place = ops.arange(self.samples, dtype="int32") - self.recorded
        in_batch = ops.logical_and(place >= 0, place < count)
        new = ops.take(losses, ops.clip(place, 0, count - 1), axis=0)
        self.losses.assign(ops.where(in_batch, new, ops.convert_to_tensor(self.losses)))
        self.recorded.assign_add(count)

    def result(self) -> dict[str, Any]:
        """Returns an empty dictionary, for which Keras makes no entry in the logs."""
        return {}


class Receiver(Protocol):
    """A user of the losses of single images, such as a curriculum."""

    def record(self, epoch: int, rows: np.ndarray, losses: np.ndarray) -> None:
        """Receives the rows (M,) of an epoch, with repeats, and the loss of each."""

    def get_state(self) -> dict[str, Any]:
        """Returns the state as JSON values."""

    def set_state(self, state: dict[str, Any]) -> None:
        """Resumes from `get_state`."""


class ShownRows(Protocol):
    """The required members of the training data."""

    steps: int

    def rows(self, epoch: int) -> np.ndarray:
        """Returns the rows (M,) of the training table in an epoch, in its order."""


class SampleLossFeedback(keras.callbacks.Callback):
    """Passes the loss of every image to a sampler after each epoch: the weighted sum over the model's outputs.

    The losses come from the training steps, with augmented images and the weights of each step; there are no extra passes. In
    mixed batches, the loss of a mixture counts for its first image. The losses are read at the end of the last training step,
    because validation uses the same metrics. The receiver's state becomes part of the run state.

    Create it before compiling, add `metric(loss, weight)` to the metrics of every output with a loss, and pass it to `fit` as a
    callback. All samples of an epoch must be on one device.

    Args:
        receiver: receives the losses.
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
        """Returns a new metric for an output with this loss and this weight in the sum."""
        self._metrics.append(SampleLosses(loss, self._samples, weight))
        return self._metrics[-1]

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if batch + 1 < self.train.steps:
            return
        assert self.model is not None  # On JAX, access to `model` updates the metrics' variables.
        rows = self.train.rows(self._epoch)
        counts = {int(ops.convert_to_numpy(metric.recorded)) for metric in self._metrics}
        if counts != {len(rows)} or len(rows) > self._samples:
            raise RuntimeError(f"Epoch {self._epoch + 1} has {len(rows)} samples, but {sorted(counts)} losses were recorded.")
        losses = sum(ops.convert_to_numpy(metric.losses).astype(np.float64) for metric in self._metrics)
        self.receiver.record(self._epoch, rows, losses[: len(rows)])

    def get_state(self) -> dict[str, Any]:
        return self.receiver.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        self.receiver.set_state(state)
