"""A run folder with its model: `Run` of a finished run, `ActiveRun` while a run executes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import pandas as pd
import tensorflow as tf

from keras_skin import models
from keras_skin.data.images import preprocess
from keras_skin.data.metadata import MetadataEncoder
from keras_skin.data.pipeline.batches import evaluation_data
from keras_skin.experiment import Experiment
from keras_skin.registry import UserError
from keras_skin.run_folder import METADATA, SEGMENTER, RunFolder
from keras_skin.training.best_weights import intact_weights, load_weights
from keras_skin.workflow.predictor import average_flips, shift_logits
from keras_skin.workflow.prepare import PreparedData

Preprocessing = list[Callable[[tf.Tensor], tf.Tensor]]


@dataclass(frozen=True, eq=False)
class Run(RunFolder):
    """A run folder and its model.

    Attributes:
        model: the model; of a finished run with its best weights, in float32, with `shift_logits`.
        metadata: the fitted encoder of the clinical metadata; None if the model takes none.
        segmenter: the run that cuts the lesion out of the model's image; None if the model takes no such image, or the data set's
            masks cut it out.
    """

    model: keras.Model
    metadata: MetadataEncoder | None = None
    segmenter: Run | None = None

    @cached_property
    def predictor(self) -> keras.Model:
        """What is measured, exported and served: `model` with the experiment's test-time augmentation. Explanations explain
        `model`."""
        return average_flips(self.model) if self.experiment.predict.tta else self.model

    @property
    def preprocessing(self) -> Preprocessing:
        """Operations between resizing and the model."""
        return preprocessing(self.experiment)


@dataclass(frozen=True, eq=False, kw_only=True)
class ActiveRun(Run):
    """A run that executes.

    Attributes:
        data: its images, in splits.
        precision: dtype policy of the training.
    """

    data: PreparedData
    precision: str = "float32"

    def batches(self, table: pd.DataFrame) -> tf.data.Dataset:
        """Batches of rows of the data in their order, without augmentation."""
        return evaluation_data(
            table,
            self.data.classes,
            self.experiment.image_size,
            list(self.model.input),
            list(self.model.output),
            self.experiment.train.batch_size,
            preprocessing=self.preprocessing,
            metadata=self.data.encoded(table),
            store=self.data.store,
        )


def preprocessing(experiment: Experiment) -> Preprocessing:
    """The experiment's operations between resizing and the model."""
    return [preprocess.get(item.name).builder(**item.arguments) for item in experiment.image.preprocessing]


def load_run(path: str | Path) -> Run:
    """Opens a finished run.

    Raises:
        UserError: if the folder is no run, the run has not finished, or one of its files is damaged.
    """
    folder = RunFolder.open(path)
    weights = intact_weights(folder.best_weights)
    if not weights.is_file() or not (folder / "metrics.json").is_file():
        raise UserError(f"The run in '{path}' has not finished. Resume it: python -m keras_skin.run --resume {path}")
    experiment, metadata = folder.experiment, None
    if (folder / METADATA).is_file():
        metadata = read_metadata(folder)
    model = build_model(experiment, len(folder.classes), folder.model_arguments)
    load_weights(model, weights)
    model = shift_logits(model, folder.label_shift, experiment.predict.mask_threshold)
    segmenter = load_run(folder / SEGMENTER) if experiment.segmenter and experiment.segmenter.has_model else None
    return Run(folder.path, model, metadata, segmenter)


def read_metadata(folder: RunFolder) -> MetadataEncoder:
    """The fitted encoder of a run's clinical metadata.

    Raises:
        UserError: if its file is damaged.
    """
    path = folder / METADATA
    try:
        return MetadataEncoder.from_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged: {error} Restore it from a backup, or train again.") from error


def build_model(
    experiment: Experiment,
    classes: int,
    from_data: Mapping[str, Any] | None = None,
    precision: str = "float32",
    pretrained: bool = False,
) -> keras.Model:
    """Builds the experiment's model under a precision policy.

    Args:
        experiment: names the model.
        classes: number of classes.
        from_data: `PreparedData.model_arguments`; the builder gets those that it takes.
        precision: Keras' name of the policy.
        pretrained: whether to load the weights that the experiment names; not needed where others are loaded afterwards.

    Raises:
        UserError: naming the argument, if the builder refuses one; or if the model takes a segmented image and the experiment has
            no segmenter, or the other way round.
    """
    entry = models.get(experiment.model.name)
    arguments = experiment.model.arguments
    if not pretrained and "weights" in arguments:
        arguments["weights"] = None
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        accepted = models.registry.parameters(entry.name)
        learned = {key: value for key, value in (from_data or {}).items() if key in accepted}
        model = entry.builder(image_size=experiment.image_size, classes=classes, **learned, **arguments)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"The model '{entry.name}' cannot be built from {experiment.model.arguments} at image.size "
            f"{list(experiment.image.size)}: {error}"
        ) from error
    finally:
        keras.config.set_dtype_policy(previous)
    if "segmented_image" in model.input and not experiment.cuts_lesions:
        raise UserError(
            f"The model '{entry.name}' takes the lesion cut out of its image, but the experiment has no segmenter that cuts it: "
            "set segmenter.run to the run of a segmentation model, segmenter.preset to a preset, or segmenter.masks to dataset; "
            "segmenter.exclude_only must be false."
        )
    if "segmented_image" not in model.input and experiment.cuts_lesions:
        raise UserError(
            f"The experiment has a segmenter, but this model '{entry.name}' takes no lesion cut out of its image: set segmenter "
            "to null; or set segmenter.exclude_only to true, to exclude only the images that it was fitted on."
        )
    return model
