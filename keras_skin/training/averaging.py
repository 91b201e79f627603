"""Averages the weights over the steps of a training (exponential moving average, EMA).

`use_ema` of Keras' optimizers is not used: `model.fit`, which is called once per epoch here, ends with the averages in the place
of the trained weights; the initial weights stay in the average for thousands of steps; and the moving statistics of batch
normalisation are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np


class WeightAveraging(keras.callbacks.Callback):
    """Holds an average of the weights, and puts it into the model for each validation and for the callbacks after it.

    After update `t` of the weights (from 1), `average += (1 - m) * (weights - average)` with
    `m = min(momentum, (1 + t) / (10 + t))`. So the average covers about the last tenth of the training so far, and the initial
    weights leave it within twenty steps; `momentum` 0.999 is reached after 8990. The moving statistics of batch normalisation
    are averaged in the same way, because they belong to the weights.

    The averages are variables of the optimizer, and hence part of the run state. The callback must be the first in its list, and
    `use_trained_weights` must be called before the state is saved.

    Args:
        model: compiled model whose optimizer is built.
        momentum: largest weight of the previous average, above 0, below 1.
        steps: steps per epoch.

    Reference: Tarvainen and Valpola, NeurIPS 2017; the rising momentum is that of TensorFlow's `ExponentialMovingAverage`.
    """

    def __init__(self, model: keras.Model, momentum: float, steps: int) -> None:
        super().__init__()
        self.momentum = momentum
        self.steps = steps
        optimizer = model.optimizer
        self._accumulated = getattr(optimizer, "inner_optimizer", optimizer).gradient_accumulation_steps or 1
        self._weights = [variable for variable in model.variables if keras.backend.is_float_dtype(variable.dtype)]
        self._averages = [
            optimizer.add_variable_from_reference(variable, name="average", initializer=variable.numpy())
            for variable in self._weights
        ]
        self._update = _compiled_update(self._averages, self._weights)
        self._trained: list[np.ndarray] | None = None
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Updates the averages after each update of the weights."""
        updates, accumulated = divmod(self._epoch * self.steps + batch + 1, self._accumulated)
        if not accumulated:
            assert self.model  # on JAX, this access brings the state of the step into the variables
            self._update(np.float32(1 - min(self.momentum, (1 + updates) / (10 + updates))))

    def on_test_begin(self, logs: Any = None) -> None:
        self.use_averages()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.use_averages()

    def use_averages(self) -> None:
        """Puts the averages into the model, until `use_trained_weights`."""
        if self._trained is None:
            self._trained = [np.array(variable.numpy()) for variable in self._weights]
            for variable, average in zip(self._weights, self._averages, strict=True):
                variable.assign(np.array(average.numpy()))  # a copy: JAX deletes the arrays of the weights in each step

    def use_trained_weights(self) -> None:
        """Puts the trained weights back, from which the training continues."""
        if self._trained is not None:
            for variable, value in zip(self._weights, self._trained, strict=True):
                variable.assign(value)
            self._trained = None


def _compiled_update(averages: list[keras.Variable], weights: list[keras.Variable]) -> Callable[[np.float32], None]:
    """Returns `average += share * (weights - average)` for all variables, compiled for the backend."""
    if keras.backend.backend() == "jax":
        import jax

        moved = jax.jit(lambda share, old, new: [a + share * (b - a) for a, b in zip(old, new, strict=True)])

        def update(share: np.float32) -> None:
            values = moved(share, [variable.value for variable in averages], [variable.value for variable in weights])
            for variable, value in zip(averages, values, strict=True):
                variable.assign(value)

        return update
    import tensorflow as tf

    @tf.function
    def graph(share: tf.Tensor) -> None:
        for average, weight in zip(averages, weights, strict=True):
            average.assign(average + share * (weight - average))

    return lambda share: graph(tf.constant(share))
