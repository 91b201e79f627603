"""Figures that need the model: features before its classifier, super-resolved images, contributions of metadata columns."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import keras
import numpy as np
import pandas as pd

from keras_skin.evaluation.evaluate import Evaluation
from keras_skin.evaluation.report import Picture
from keras_skin.evaluation.super_resolution import psnr, ssim
from keras_skin.explain.samples import stratified_sample
from keras_skin.explain.shap_values import IMAGE
from keras_skin.figures.embedding import embedding_figure
from keras_skin.figures.explanations import attribution_bars
from keras_skin.figures.super_resolution import SuperResolved, super_resolution_figure
from keras_skin.registry import atomic_path, escape_table
from keras_skin.run_folder import EMBEDDINGS
from keras_skin.workflow.explaining import DEMO_MEASURED, EXPLAIN
from keras_skin.workflow.opened_run import ActiveRun
from keras_skin.workflow.patient import metadata_explainer

log = logging.getLogger("keras_skin")

EMBEDDED, SUPER_RESOLVED, ATTRIBUTED = 600, 4, 48
"""Images that are drawn at most, whatever the size of the split."""
COLUMNS = 20
"""Columns of the metadata that are drawn at most."""
CLASSIFIER = "label"
"""Layer whose input holds the features of the image."""


def model_figures(run: ActiveRun, evaluations: Mapping[str, Evaluation]) -> list[Picture]:
    """Draws what the model offers, of the test split (of the validation split where there is none)."""
    split = "test" if "test" in evaluations else "validation"
    pictures = [
        _embeddings(run, split, evaluations[split].predictions),
        _super_resolutions(run, split),
        _column_attributions(run, split),
    ]
    return [picture for picture in pictures if picture]


def _embeddings(run: ActiveRun, split: str, predictions: pd.DataFrame) -> Picture | None:
    table, classes, model = run.data.rows(split), run.data.classes, run.model
    labelled = np.flatnonzero(table["label"].isin(classes))
    if CLASSIFIER not in model.output or CLASSIFIER not in [layer.name for layer in model.layers]:
        return None
    chosen = labelled[stratified_sample(table["label"].iloc[labelled].tolist(), EMBEDDED, run.experiment.train.seed)]
    if not len(chosen):
        return None
    log.info("Laying out the features of %d images", len(chosen))
    table = table.iloc[chosen].reset_index(drop=True)
    embedding = keras.Model(model.input, {"embedding": model.get_layer(CLASSIFIER).input})
    features = embedding.predict(run.batches(table), verbose=0)["embedding"]
    with atomic_path(run / EMBEDDINGS) as file, file.open("wb") as stream:
        np.savez_compressed(
            stream, image_ids=table["image_id"].to_numpy(str), features=features.astype(np.float32), split=np.array(split)
        )
    path = embedding_figure(
        features,
        table["label"].tolist(),
        predictions["predicted"].iloc[chosen].tolist(),
        classes,
        run / "figures" / f"{split}_embeddings.png",
        title=f"Features before the classifier, {split}, t-SNE",
        seed=run.experiment.train.seed,
        synthetic=run.synthetic,
    )
    caption = f"t-SNE of the {features.shape[1]} features that the classifier takes, of {len(chosen)} images of {split}"
    more = "" if len(chosen) == len(labelled) else f" (of {len(labelled)}, the classes in turn)"
    return Picture(path, f"{caption}{more}. Distances between clusters mean nothing.") if path else None


def _super_resolutions(run: ActiveRun, split: str) -> Picture | None:
    model = run.model
    if "super_resolution" not in model.output:
        return None
    table = run.data.rows(split)
    table = table.iloc[stratified_sample(table["label"].tolist(), SUPER_RESOLVED, run.experiment.train.seed)].reset_index(
        drop=True
    )
    decoder = keras.Model(model.input, {"pair": model.output["super_resolution"]})
    batches = run.batches(table)
    pairs = decoder.predict(batches, verbose=0)["pair"]
    inputs_shown = [inputs["image"] for inputs, _ in batches.unbatch().as_numpy_iterator()]
    images = [
        SuperResolved(image_id, image, pair[0], pair[1])
        for image_id, image, pair in zip(table["image_id"], inputs_shown, pairs, strict=True)
    ]
    path = super_resolution_figure(
        images,
        run / "figures" / f"{split}_super_resolution.png",
        title=f"Super-resolution, {split}",
        synthetic=run.synthetic,
    )
    means = [np.mean([measure(image.output, image.target) for image in images]) for measure in (psnr, ssim)]
    caption = "The model's input, its super-resolved image, and the target of that auxiliary task"
    return Picture(path, f"{caption}; mean PSNR {means[0]:.1f} dB, SSIM {means[1]:.3f}.") if path else None


def _column_attributions(run: ActiveRun, split: str) -> Picture | None:
    """Draws the strongest columns of the encoded metadata, stacked by class; writes all of them to metadata_shap_columns.csv."""
    explainer = metadata_explainer(run, by_column=True)
    if explainer is None:
        return None
    table = run.data.rows(split)
    settings = run.experiment.explain
    count = min(ATTRIBUTED, max(settings.images, settings.measured), DEMO_MEASURED if run.options.demo else ATTRIBUTED)
    chosen = stratified_sample(table["label"].tolist(), count, run.experiment.train.seed)
    table = table.iloc[chosen].reset_index(drop=True)
    log.info("Attributing %d images of %s to the columns of the metadata", len(table), split)
    inputs = [inputs for inputs, _ in run.batches(table).unbatch().as_numpy_iterator()]
    attributions = explainer.explain({name: np.stack([item[name] for item in inputs]) for name in inputs[0]})
    classes = run.data.classes
    with atomic_path(run / EXPLAIN / "metadata_shap_columns.csv") as file:
        escape_table(attributions.table(table["image_id"].tolist(), classes)).to_csv(file, index=False)
    columns = [index for index, name in enumerate(attributions.groups) if name != IMAGE]
    strength = np.abs(attributions.values).mean(axis=0).sum(axis=1)
    strongest = sorted(columns, key=lambda index: -strength[index])[:COLUMNS]
    shown = f"the {len(strongest)} strongest of {len(columns)} columns" if len(strongest) < len(columns) else "every column"
    path = attribution_bars(
        attributions.values[:, strongest],
        [attributions.groups[index] for index in strongest],
        classes,
        run / "figures" / f"{split}_metadata_columns.png",
        note=shown,
        synthetic=run.synthetic,
    )
    return Picture(path, f"SHAP values of the encoded metadata on {len(table)} images of {split}, stacked by class: {shown}.")
