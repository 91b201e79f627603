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
"""Names of the schedules, each with the arguments that it needs."""


def make_schedule(settings: Mapping[str, Any] | None, learning_rate: float, epochs: int, steps: int) -> Any:
    """A learning rate, or a Keras schedule of it, over a training of `epochs * steps` steps.

    - `{"name": "constant"}`: the learning rate itself.
    - `{"name": "exponential", "factor": f}`: falls smoothly at every step and has become `f` times itself after the last one,
      lr(i) = learning_rate * f ** (i / (epochs * steps)).
    - `{"name": "step", "factor": f, "every": n}`: multiplied by `f` after every `n` epochs.
    - `{"name": "plateau", "factor": f, "patience": n}`: depends on how the training goes, which no function of the step
      can tell. The learning rate itself is returned here; what lowers it is `keras_skin.training.plateau`, given to `fit`.

    Args:
        settings: name and arguments; None means constant. Arguments that are None count as not given.
        learning_rate: the initial learning rate, above 0.
        epochs: epochs of the whole training.
        steps: steps (batches) of one epoch. Where the optimizer accumulates gradients, batches are still what is counted.

    Returns:
        A float, or a `keras.optimizers.schedules.LearningRateSchedule`.

    Raises:
        UserError: naming every unknown name, unknown, missing or impossible argument.
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
    """What is wrong with these settings, one sentence each."""
    name = settings.get("name")
    if name not in SCHEDULES:
        return [
            f"There is no learning-rate schedule {name!r}.{did_you_mean(str(name), SCHEDULES)} Valid: {', '.join(SCHEDULES)}."
        ]
    needed = SCHEDULES[name]
    problems = [
        f"Schedule '{name}' takes no '{key}'. It takes: {', '.join(needed) or 'no arguments'}."
        for key in settings
        if key not in ("name", *needed)
    ]
    problems += [f"Schedule '{name}' needs '{key}'." for key in needed if key not in settings]
    if "factor" in needed and "factor" in settings and not 0 < settings["factor"] <= 1:
        problems.append(f"Schedule '{name}': factor must be above 0 and at most 1, got {settings['factor']!r}.")
    problems += [
        f"Schedule '{name}': {key} must be a whole number of epochs, at least 1, got {settings[key]!r}."
        for key in ("every", "patience")
        if key in needed and key in settings and not (isinstance(settings[key], int) and settings[key] >= 1)
    ]
    return problems
