"""Optimizers from plain dictionaries such as `{"name": "adam", "learning_rate": 0.003}`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from keras_skin.training.coupled_l2 import coupled_l2
from keras_skin.training.schedules import make_schedule

OPTIMIZERS = {
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "sgd": keras.optimizers.SGD,
    "rmsprop": keras.optimizers.RMSprop,
}


def make_optimizer(
    settings: Mapping[str, Any], schedule: Mapping[str, Any] | None = None, *, epochs: int, steps: int
) -> keras.optimizers.Optimizer:
    """Returns the optimizer of the settings, with its learning-rate schedule.

    Args:
        settings: as the experiment's `train.optimizer` has checked them: `name`, `learning_rate`, and arguments of that optimizer
            or `l2` (see `coupled_l2`). None keeps the default of Keras.
        schedule: see `make_schedule`; None is a constant learning rate.
        epochs: epochs of the whole training.
        steps: steps per epoch.

    Returns:
        The optimizer. In mixed float16, `model.compile` wraps it in a `LossScaleOptimizer`.
    """
    arguments = {key: value for key, value in settings.items() if value is not None}
    kind, l2 = OPTIMIZERS[arguments.pop("name")], arguments.pop("l2", None)
    arguments["learning_rate"] = make_schedule(schedule or {"name": "constant"}, arguments["learning_rate"], epochs, steps)
    return kind(**arguments) if l2 is None else coupled_l2(kind, l2, **arguments)
