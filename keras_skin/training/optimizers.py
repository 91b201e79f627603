"""Optimizers from plain dictionaries such as `{"name": "adam", "learning_rate": 0.003}`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keras_skin.registry import UserError, did_you_mean
from keras_skin.training.schedules import make_schedule

_COMMON = ("learning_rate", "l2", "weight_decay", "clipnorm", "clipvalue", "global_clipnorm", "gradient_accumulation_steps")

OPTIMIZERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "adam": ("Adam", (*_COMMON, "beta_1", "beta_2", "epsilon", "amsgrad")),
    "adamw": ("AdamW", (*_COMMON, "beta_1", "beta_2", "epsilon", "amsgrad")),
    "sgd": ("SGD", (*_COMMON, "momentum", "nesterov")),
    "rmsprop": ("RMSprop", (*_COMMON, "rho", "momentum", "epsilon", "centered")),
    "nadam": ("Nadam", (*_COMMON, "beta_1", "beta_2", "epsilon")),
    "lion": ("Lion", (*_COMMON, "beta_1", "beta_2")),
}
"""Names of the optimizers, each with its class in `keras.optimizers` and its arguments.

Keras' moving average of the weights (`use_ema`) is not among them: it overwrites the weights when a call of `model.fit` ends, and
here every epoch is one such call.
"""


def make_optimizer(settings: Mapping[str, Any], schedule: Mapping[str, Any] | None = None, *, epochs: int, steps: int) -> Any:
    """Returns the optimizer of the settings, with its learning-rate schedule.

    Args:
        settings: `name`, `learning_rate` and further arguments of that optimizer, or `l2` (see `coupled_l2`). None keeps the
            default of Keras.
        schedule: see `make_schedule`; None is a constant learning rate.
        epochs: epochs of the whole training.
        steps: steps per epoch.

    Returns:
        A `keras.optimizers.Optimizer`. In mixed float16, `model.compile` wraps it in a `LossScaleOptimizer`.

    Raises:
        UserError: naming every problem and the valid arguments.
    """
    arguments = {key: value for key, value in settings.items() if value is not None}
    name = arguments.pop("name", None)
    if name not in OPTIMIZERS:
        raise UserError(f"There is no optimizer {name!r}.{did_you_mean(str(name), OPTIMIZERS)} Valid: {', '.join(OPTIMIZERS)}.")
    class_name, valid = OPTIMIZERS[name]
    problems = [
        f"Optimizer '{name}' takes no '{key}'.{did_you_mean(key, valid)} It takes: {', '.join(valid)}."
        for key in arguments
        if key not in valid
    ]
    learning_rate = arguments.pop("learning_rate", None)
    if isinstance(learning_rate, bool) or not isinstance(learning_rate, (int, float)) or not learning_rate > 0:
        problems.append(f"Optimizer '{name}' needs a learning_rate above 0, got {learning_rate!r}.")
    if problems:
        raise UserError("\n".join(problems))
    l2 = arguments.pop("l2", None)
    if l2 is not None and arguments.get("weight_decay") is not None:
        raise UserError(f"Optimizer '{name}': l2 (coupled) and weight_decay (decoupled) exclude each other. Remove one.")
    import keras

    from keras_skin.training.coupled_l2 import coupled_l2

    kind = getattr(keras.optimizers, class_name)
    arguments["learning_rate"] = make_schedule(schedule, learning_rate, epochs, steps)
    try:
        return kind(**arguments) if l2 is None else coupled_l2(kind, l2, **arguments)
    except ValueError as error:  # from Keras, which checks the values and combinations of arguments
        raise UserError(f"Optimizer '{name}': {error}") from error
