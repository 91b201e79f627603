"""Learning-rate schedules from plain dictionaries such as `{"name": "exponential", "factor": 0.1}`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras


def make_schedule(settings: Mapping[str, Any], learning_rate: float, epochs: int, steps: int) -> Any:
    """Returns a learning rate, or a Keras schedule of it, over a training of `epochs * steps` steps.

    - `{"name": "constant"}`: the learning rate itself.
    - `{"name": "exponential", "factor": f}`: falls smoothly at every step, by the factor `f` over the whole training,
      lr(i) = learning_rate * f ** (i / (epochs * steps)).
    - `{"name": "step", "factor": f, "every": n}`: multiplied by `f` after every `n` epochs.
    - `{"name": "plateau", "factor": f, "patience": n}`: no function of the step, because it depends on the monitored value. This
      function returns the learning rate itself; the `plateau` argument of `fit` lowers it.

    Args:
        settings: name and arguments, as the experiment's `train.schedule` has checked them.
        learning_rate: the initial learning rate, above 0.
        epochs: epochs of the whole training.
        steps: steps (batches) per epoch, also where the optimizer accumulates gradients.

    Returns:
        A float, or a `keras.optimizers.schedules.LearningRateSchedule`.
    """
    if settings["name"] not in ("exponential", "step"):
        return learning_rate
    is_staircase = settings["name"] == "step"
    return keras.optimizers.schedules.ExponentialDecay(
        initial_learning_rate=learning_rate,
        decay_rate=settings["factor"],
        staircase=is_staircase,
        decay_steps=steps * (settings["every"] if is_staircase else epochs),
    )
