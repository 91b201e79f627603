"""The explanations of a run: which validation images, relative to which training images, and what is asked of the model."""

from __future__ import annotations

import logging

import keras
import numpy as np
import pandas as pd

from keras_skin.data.images.load import load_mask
from keras_skin.experiment import Experiment
from keras_skin.explain.callback import ExplainCallback
from keras_skin.explain.samples import ExplainSample, stratified_sample
from keras_skin.explain.shap_values import BACKGROUND
from keras_skin.workflow.folder import RunFolder
from keras_skin.workflow.prepare import PreparedData
from keras_skin.workflow.training import evaluation_batches

log = logging.getLogger("keras_skin")

EXPLAIN = "explain"
"""The run folder's part for them."""
DEMO_MEASURED = 12
"""Of a demo no more: its training is over in a minute or two."""


def make_explainer(
    folder: RunFolder, experiment: Experiment, model: keras.Model, prepared: PreparedData, synthetic: bool
) -> ExplainCallback | None:
    """What the experiment asks to be explained, with its images loaded; None if it asks for nothing."""
    settings = experiment.explain
    measured = min(settings.measured, DEMO_MEASURED) if synthetic else settings.measured
    wanted = max(settings.images, measured)
    if not wanted:
        return None
    samples = _samples(experiment, model, prepared, _chosen(prepared.part("validation"), wanted, experiment.train.seed))
    relative = "metadata" in model.input or "image_shap" in settings.methods
    background = _background(experiment, model, prepared) if relative else None
    return ExplainCallback(
        samples,
        folder / EXPLAIN,
        prepared.classes,
        explain_classes=settings.classes,
        layers=settings.layer,
        cam=settings.cam,
        methods=settings.methods,
        every=settings.every,
        max_pictures=settings.images,
        measure=measured > 0,
        background=background,
        metadata_columns=prepared.metadata.field_of_columns if prepared.metadata else (),
        metadata_switches=prepared.metadata.availability_columns if prepared.metadata else (),
        synthetic=synthetic,
        seed=experiment.train.seed,
    )


def _chosen(part: pd.DataFrame, count: int, seed: int) -> pd.DataFrame:
    return part.iloc[stratified_sample(part["label"].tolist(), count, seed)].reset_index(drop=True)


def _samples(experiment: Experiment, model: keras.Model, prepared: PreparedData, table: pd.DataFrame) -> list[ExplainSample]:
    inputs = evaluation_batches(experiment, model, prepared, table).unbatch().as_numpy_iterator()
    fields = [field.name for field in prepared.metadata.fields] if prepared.metadata else []
    height, width = experiment.image_size
    size = (2 * height, 2 * width)  # fine enough for outlines; originals of many megapixels would be held through the training
    return [
        ExplainSample(
            row["image_id"],
            seen,
            prepared.classes.index(row["label"]) if row["label"] else None,
            load_mask(row["mask"], size).numpy()[..., 0] > 0.5 if row["mask"] else None,
            metadata={name: str(row[name]) for name in fields} or None,
            group=row["group_id"],
        )
        for row, (seen, _) in zip(table.to_dict("records"), inputs, strict=True)
    ]


def _background(experiment: Experiment, model: keras.Model, prepared: PreparedData) -> dict[str, np.ndarray]:
    """Inputs of a few images of the training part, and of no other."""
    table = _chosen(prepared.part("train"), BACKGROUND, experiment.train.seed)
    seen = [inputs for inputs, _ in evaluation_batches(experiment, model, prepared, table).unbatch().as_numpy_iterator()]
    return {name: np.stack([inputs[name] for inputs in seen]) for name in seen[0]}
