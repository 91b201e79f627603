"""Fine-tuning: a training that starts from the weights of a preset or of a finished run."""

from __future__ import annotations

import logging
from typing import Any

import keras
import numpy as np

from keras_skin.presets.sources import locate
from keras_skin.registry import UserError
from keras_skin.run_folder import RunFolder
from keras_skin.workflow.opened_run import load_run

log = logging.getLogger("keras_skin")

LEAST_SHARE = 0.5
"""Share of a model's parameters that must have initial weights; below it the two are different networks."""
_NAMED = 4


def initial_run(source: str) -> RunFolder:
    """The folder of the preset or run that `model.init` names.

    Raises:
        UserError: if there is none.
    """
    try:
        return RunFolder.open(locate(source))
    except UserError as error:
        raise UserError(f"model.init: {error}") from None


def start_from(model: keras.Model, source: str) -> dict[str, Any]:
    """Copies the weights of a preset or run into a model: those with the same name and shape.

    Args:
        model: the model; its other weights, usually those of the last layer for other classes, stay random.
        source: as in `model.init`.

    Returns:
        For run.json: `name` of the source, `weights_sha256`, `copied` and `new`, the names of both kinds of weights.

    Raises:
        UserError: if less than half of the model's parameters have initial weights.
    """
    run = load_run(initial_run(source).path)
    initial = {variable.path: variable for variable in run.model.weights}
    matching = {
        variable.path: variable
        for variable in model.weights
        if variable.path in initial and tuple(initial[variable.path].shape) == tuple(variable.shape)
    }
    new = [variable.path for variable in model.weights if variable.path not in matching]
    sizes = {variable.path: int(np.prod(variable.shape)) for variable in model.weights}
    share = sum(sizes[path] for path in matching) / sum(sizes.values())
    if share < LEAST_SHARE:
        raise UserError(
            f"model.init: '{source}' holds another network: its weights fit {share:.0%} of the parameters of this model "
            f"'{model.name}', expected at least {LEAST_SHARE:.0%}. Without initial weights are {_list(new)}.\n"
            f"Its model: {run.experiment.model.model_dump(exclude_none=True)}. Name the same model and backbone, or set "
            "model.init to null."
        )
    for path, variable in matching.items():
        variable.assign(initial[path])
    rest = f"; new: {_list(new)}" if new else ""
    log.info("Initial weights: %s, %d of %d arrays%s", run.path.name, len(matching), len(sizes), rest)
    return {"name": run.path.name, "weights_sha256": run.weights_sha256, "copied": len(matching), "new": new}


def describe_start(folder: RunFolder) -> dict[str, str]:
    """A line for the report's summary: the weights that the training started from."""
    record = folder.record.get("init")
    if not record:
        return {}
    new = f"; new: {_list(record['new'])}" if record["new"] else ""
    return {"Initial weights": f"{record['name']}, {record['weights_sha256'][:12]}{new}"}


def _list(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
