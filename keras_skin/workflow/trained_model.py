"""The experiment's model, and finished runs opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from keras_skin import models
from keras_skin.data.metadata import MetadataEncoder
from keras_skin.experiment import Experiment
from keras_skin.registry import UserError
from keras_skin.training.fit import BEST_WEIGHTS
from keras_skin.workflow.folder import RunFolder

METADATA = "metadata.json"
SEGMENTER = "segmenter"
"""What a run folder calls the fitted metadata encoder, and the folder of the segmenter that its model is chained to."""


def build_model(
    experiment: Experiment,
    classes: int,
    from_data: Mapping[str, Any] | None = None,
    precision: str = "float32",
    pretrained: bool = False,
) -> keras.Model:
    """The experiment's model under a precision policy; its builder's complaints become a user's message.

    Args:
        experiment: names the model.
        classes: number of classes.
        from_data: `PreparedData.model_arguments`; the builder gets those that it takes.
        precision: Keras' name of the policy.
        pretrained: whether the weights that the experiment names are loaded; not where others follow anyway.

    Raises:
        UserError: naming the argument, if the builder refuses one; or if the model takes a lesion cut out and the experiment does
            not say what cuts it out, or the other way round.
    """
    entry = models.get(experiment.model.name)
    arguments = experiment.model.arguments
    if not pretrained and "weights" in arguments:
        arguments["weights"] = None
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        taken = models.registry.parameters(entry.name)
        given = {key: value for key, value in (from_data or {}).items() if key in taken}
        model = entry.builder(image_size=experiment.image_size, classes=classes, **given, **arguments)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"The model '{entry.name}' cannot be built from {experiment.model.arguments} at image.size "
            f"{list(experiment.image.size)}: {error}"
        ) from error
    finally:
        keras.config.set_dtype_policy(previous)
    if ("segmented_image" in model.input) != (experiment.segmenter is not None):
        raise UserError(
            f"The model '{entry.name}' takes the lesion cut out of its image, but the experiment has no segmenter: set "
            "segmenter.run to the run of a segmentation model, or segmenter.masks to dataset."
            if experiment.segmenter is None
            else f"The experiment has a segmenter, but this model '{entry.name}' takes no lesion cut out of its image: set "
            "segmenter to null."
        )
    return model


@dataclass(frozen=True)
class Run:
    """A finished run, opened.

    Attributes:
        folder: the run's folder.
        experiment: what was run, fully resolved.
        classes: labels in the order of the model's outputs.
        model: the model with its best weights, in float32.
        metrics: the content of metrics.json.
        metadata: the fitted encoder of the clinical metadata; None if the model takes none.
        segmenter: the run that cuts the lesion out of the model's image; None if the model takes none cut out, or the data set's
            masks did it.
    """

    folder: Path
    experiment: Experiment
    classes: tuple[str, ...]
    model: keras.Model
    metrics: dict[str, Any]
    metadata: MetadataEncoder | None = None
    segmenter: Run | None = None


def load_run(folder: str | Path) -> Run:
    """Opens a finished run.

    Raises:
        UserError: if the folder is no run, or its training has not finished.
    """
    opened = RunFolder.open(Path(folder))
    weights = opened / "checkpoints" / BEST_WEIGHTS
    if not weights.is_file() or not (opened / "metrics.json").is_file():
        raise UserError(f"The run in '{folder}' has not finished. Continue it: python -m keras_skin.run --resume {folder}")
    experiment, classes = opened.experiment(), tuple(opened.read_json("run.json")["classes"])
    metadata = None
    if (opened / METADATA).is_file():
        metadata = MetadataEncoder.from_json((opened / METADATA).read_text(encoding="utf-8"))
    model = build_model(experiment, len(classes), opened.read_json("run.json")["model_arguments"])
    model.load_weights(weights)
    segmenter = load_run(opened / SEGMENTER) if experiment.segmenter and experiment.segmenter.run else None
    return Run(opened.path, experiment, classes, model, opened.read_json("metrics.json"), metadata, segmenter)
