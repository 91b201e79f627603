"""Learning-rate schedules from plain dictionaries such as `{"name": "exponential", "factor": 0.1}`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keras_skin.registry import UserError, did_you_mean

SCHEDULES: dict[str, tuple[str, ...]] = {
    "constant": (),
    "exponential": ("factor",),
    "step": ("factor", "every"),
    "plateau": ("factor", "patience"),
}
"""Names of the schedules, each with its required arguments."""


def make_schedule(settings: Mapping[str, Any] | None, learning_rate: float, epochs: int, steps: int) -> Any:
    """Returns a learning rate, or a Keras schedule of it, over a training of `epochs * steps` steps.

    - `{"name": "constant"}`: the learning rate itself.
    - `{"name": "exponential", "factor": f}`: falls smoothly at every step, by the factor `f` over the whole training,
      lr(i) = learning_rate * f ** (i / (epochs * steps)).
    - `{"name": "step", "factor": f, "every": n}`: multiplied by `f` after every `n` epochs.
    - `{"name": "plateau", "factor": f, "patience": n}`: no function of the step, because it depends on the monitored value. This
      function returns the learning rate itself; the `plateau` argument of `fit` lowers it.

    Args:
        settings: name and arguments; None is constant. Arguments that are None count as missing.
        learning_rate: the initial learning rate, above 0.
        epochs: epochs of the whole training.
        steps: steps (batches) per epoch, also where the optimizer accumulates gradients.

    Returns:
        A float, or a `keras.optimizers.schedules.LearningRateSchedule`.

    Raises:
        UserError: naming the unknown name, or every unknown, missing or invalid argument.
    """
    settings = {"name": "constant"} if settings is None else {key: value for key, value in settings.items() if value is not None}
    problems = schedule_problems(settings)
    if problems:
        raise UserError("\n".join(problems))
    if settings["name"] in ("constant", "plateau"):
        return float(learning_rate)
    import keras

    staircase = settings["name"] == "step"
    return keras.optimizers.schedules.ExponentialDecay(
        initial_learning_rate=float(learning_rate),
        decay_rate=float(settings["factor"]),
        staircase=staircase,
        decay_steps=steps * (int(settings["every"]) if staircase else epochs),
    )


def schedule_problems(settings: Mapping[str, Any]) -> list[str]:
    """Returns the problems of the settings, one sentence each."""
    name = settings.get("name")
    if name not in SCHEDULES:
        return [
            f"There is no learning-rate schedule {name!r}.{did_you_mean(str(name), SCHEDULES)} Valid: {', '.join(SCHEDULES)}."
        ]
    required = SCHEDULES[name]
    problems = [
        f"Schedule '{name}' takes no '{key}'. It takes: {', '.join(required) or 'no arguments'}."
        for key in settings
        if key not in ("name", *required)
    ]
    problems += [f"Schedule '{name}' needs '{key}'." for key in required if key not in settings]
    if "factor" in required and "factor" in settings and not 0 < settings["factor"] <= 1:
        problems.append(f"Schedule '{name}': factor must be above 0 and at most 1, got {settings['factor']!r}.")
    problems += [
        f"Schedule '{name}': {key} must be a whole number of epochs, at least 1, got {settings[key]!r}."
        for key in ("every", "patience")
        if key in required and key in settings and not (isinstance(settings[key], int) and settings[key] >= 1)
    ]
    return problems
