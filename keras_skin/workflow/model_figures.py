"""Figures that need the model itself: the features that its classifier takes, and what its super-resolution draws."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import keras
import numpy as np
import pandas as pd

from keras_skin.evaluation.evaluate import Evaluation
from keras_skin.evaluation.report import Picture
from keras_skin.evaluation.super_resolution import psnr, ssim
from keras_skin.experiment import Experiment
from keras_skin.explain.samples import stratified_sample
from keras_skin.figures.embedding import embedding_figure
from keras_skin.figures.super_resolution import SuperResolved, super_resolution_figure
from keras_skin.workflow.folder import RunFolder
from keras_skin.workflow.prepare import PreparedData
from keras_skin.workflow.training import evaluation_batches

log = logging.getLogger("keras_skin")

EMBEDDED, SUPER_RESOLVED = 600, 4
"""Images that are drawn at most, whatever the size of the part."""
CLASSIFIER = "label"
"""Layer whose input is what the classes are told from."""


def model_figures(
    folder: RunFolder,
    experiment: Experiment,
    model: keras.Model,
    prepared: PreparedData,
    evaluations: Mapping[str, Evaluation],
    synthetic: bool,
) -> list[Picture]:
    """Draws what the model offers, of the test part (of the validation part where there is none)."""
    split = "test" if "test" in evaluations else "validation"
    drawn = [
        _embeddings(folder, experiment, model, prepared, split, evaluations[split].predictions, synthetic),
        _super_resolutions(folder, experiment, model, prepared, split, synthetic),
    ]
    return [picture for picture in drawn if picture]


def _embeddings(
    folder: RunFolder,
    experiment: Experiment,
    model: keras.Model,
    prepared: PreparedData,
    split: str,
    predictions: pd.DataFrame,
    synthetic: bool,
) -> Picture | None:
    table = prepared.part(split).reset_index(drop=True)
    known = np.flatnonzero(table["label"].isin(prepared.classes))
    if CLASSIFIER not in model.output or CLASSIFIER not in [layer.name for layer in model.layers]:
        return None
    chosen = known[stratified_sample(table["label"].iloc[known].tolist(), EMBEDDED, experiment.train.seed)]
    if not len(chosen):
        return None
    log.info("Laying out the features of %d images", len(chosen))
    table = table.iloc[chosen].reset_index(drop=True)
    embedding = keras.Model(model.input, {"embedding": model.get_layer(CLASSIFIER).input})
    features = embedding.predict(evaluation_batches(experiment, model, prepared, table), verbose=0)["embedding"]
    path = embedding_figure(
        features,
        table["label"].tolist(),
        predictions["predicted"].iloc[chosen].tolist(),
        prepared.classes,
        folder / "figures" / f"{split}_embeddings.png",
        title=f"Features before the classifier, {split}, t-SNE",
        seed=experiment.train.seed,
        synthetic=synthetic,
    )
    caption = f"t-SNE of the {features.shape[1]} features that the classifier takes, of {len(chosen)} images of {split}"
    more = "" if len(chosen) == len(known) else f" (of {len(known)}, the classes in turn)"
    return Picture(path, f"{caption}{more}. Distances between clusters mean nothing.") if path else None


def _super_resolutions(
    folder: RunFolder, experiment: Experiment, model: keras.Model, prepared: PreparedData, split: str, synthetic: bool
) -> Picture | None:
    if "super_resolution" not in model.output:
        return None
    table = prepared.part(split)
    table = table.iloc[stratified_sample(table["label"].tolist(), SUPER_RESOLVED, experiment.train.seed)].reset_index(drop=True)
    decoder = keras.Model(model.input, {"pair": model.output["super_resolution"]})
    batches = evaluation_batches(experiment, model, prepared, table)
    pairs = decoder.predict(batches, verbose=0)["pair"]
    seen = [inputs["image"] for inputs, _ in batches.unbatch().as_numpy_iterator()]
    images = [
        SuperResolved(image_id, image, pair[0], pair[1])
        for image_id, image, pair in zip(table["image_id"], seen, pairs, strict=True)
    ]
    path = super_resolution_figure(
        images, folder / "figures" / f"{split}_super_resolution.png", title=f"Super-resolution, {split}", synthetic=synthetic
    )
    means = [np.mean([measure(image.output, image.target) for image in images]) for measure in (psnr, ssim)]
    caption = "What the model sees, the image that its decoder draws from the features, and the target of that auxiliary task"
    return Picture(path, f"{caption}; mean PSNR {means[0]:.1f} dB, SSIM {means[1]:.3f}.") if path else None
