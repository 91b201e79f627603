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
    - `{"name": "cosine", "warmup_epochs": n, "factor": f}`: rises linearly to the learning rate over `n` epochs (default
      1, at most half of the training), then falls to `f` times that rate (default 0) along half a period of the cosine.
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
    if settings["name"] == "cosine":
        return _cosine(
            learning_rate, epochs * steps, round(settings.get("warmup_epochs", 1.0) * steps), settings.get("factor", 0.0)
        )
    if settings["name"] not in ("exponential", "step"):
        return learning_rate
    is_staircase = settings["name"] == "step"
    return keras.optimizers.schedules.ExponentialDecay(
        initial_learning_rate=learning_rate,
        decay_rate=settings["factor"],
        staircase=is_staircase,
        decay_steps=steps * (settings["every"] if is_staircase else epochs),
    )


def _cosine(learning_rate: float, steps: int, warmup_steps: int, factor: float) -> Any:
    warmup_steps = min(warmup_steps, steps // 2)
    return keras.optimizers.schedules.CosineDecay(
        # The first step is one unit of the warm-up: at rate 0 it would train nothing.
        initial_learning_rate=learning_rate / (warmup_steps + 1),
        warmup_target=learning_rate,
        warmup_steps=warmup_steps,
        decay_steps=steps - warmup_steps,
        alpha=factor,
    )
