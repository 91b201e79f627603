"""The explanations of a run: which images are explained, relative to which training images."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial

import keras
import numpy as np
import pandas as pd

from keras_skin.data.images.load import load_mask
from keras_skin.explain.callback import ExplainCallback
from keras_skin.explain.overlay import contact_sheet, overlay, write_png
from keras_skin.explain.samples import ExplainSample, stack_inputs, stratified_sample, write_bytes
from keras_skin.explain.shap_values import BACKGROUND
from keras_skin.explain.views import in_batches, predict
from keras_skin.workflow.opened_run import ActiveRun

log = logging.getLogger("keras_skin")

EXPLAIN = "explain"
"""The folder of the explanations."""
DEMO_MEASURED = 12
"""Most images that a demo measures, because its training takes only a minute."""


def make_explainer(run: ActiveRun) -> ExplainCallback | None:
    """The explanations that the experiment asks for, with their images loaded; None if it asks for none."""
    settings, data, synthetic = run.experiment.explain, run.data, run.options.demo
    measured = min(settings.measured, DEMO_MEASURED) if synthetic else settings.measured
    count = max(settings.images, measured)
    if not count:
        return None
    samples = _samples(run, _chosen(run, data.shown_split, count))
    needs_background = "metadata" in run.model.input or "image_shap" in settings.methods
    background = _background(run) if needs_background else None
    return ExplainCallback(
        samples,
        run / EXPLAIN,
        data.classes,
        explain_classes=settings.classes,
        layers=settings.layer,
        cam=settings.cam,
        methods=settings.methods,
        every=settings.every,
        max_pictures=settings.images,
        measure=measured > 0,
        background=background,
        metadata_columns=data.metadata.field_of_columns if data.metadata else (),
        metadata_switches=data.metadata.availability_columns if data.metadata else (),
        split=data.shown_split,
        synthetic=synthetic,
        seed=run.experiment.train.seed,
    )


def first_picture(run: ActiveRun, explainer: ExplainCallback) -> keras.callbacks.Callback:
    """A callback that writes `figures/first_epoch.png` after the first epoch: images with true and predicted outlines
    and classes, to see early whether the training goes well."""

    def write(epoch: int, logs: object = None) -> None:
        samples = explainer.picture_samples
        if epoch or not samples:
            return
        predictions = in_batches(partial(predict, run.model), stack_inputs(samples), explainer.batch_size)
        tiles = [
            overlay(
                sample.picture,
                true_mask=sample.mask,
                predicted_mask=predictions["mask"][row] if "mask" in predictions else None,
                caption=_caption(sample, predictions["label"][row], run.data.classes) if "label" in predictions else (),
            )
            for row, sample in enumerate(samples)
        ]
        title = [f"{run.data.shown_split} images after the first epoch; outlines: green true, magenta predicted".capitalize()]
        path = run / "figures" / "first_epoch.png"
        write_bytes(path, write_png(contact_sheet(tiles, columns=3, title=title, synthetic=run.options.demo)))
        log.info("First picture: %s", path)

    return keras.callbacks.LambdaCallback(on_epoch_end=write)


def _caption(sample: ExplainSample, probabilities: np.ndarray, classes: Sequence[str]) -> list[str]:
    truth = "" if sample.label is None else f" (true: {classes[sample.label]})"
    return [f"{classes[int(probabilities.argmax())]}, p = {float(probabilities.max()):.2f}{truth}"]


def _chosen(run: ActiveRun, split: str, count: int) -> pd.DataFrame:
    table = run.data.rows(split)
    return table.iloc[stratified_sample(table["label"].tolist(), count, run.experiment.train.seed)].reset_index(drop=True)


def _samples(run: ActiveRun, table: pd.DataFrame) -> list[ExplainSample]:
    classes, metadata = run.data.classes, run.data.metadata
    fields = [field.name for field in metadata.fields] if metadata else []
    height, width = run.experiment.image_size
    size = (2 * height, 2 * width)  # fine enough for outlines; originals would take much memory during the training
    return [
        ExplainSample(
            row["image_id"],
            inputs,
            classes.index(row["label"]) if row["label"] else None,
            load_mask(row["mask"], size).numpy()[..., 0] > 0.5 if row["mask"] else None,
            metadata={name: str(row[name]) for name in fields} or None,
            group=row["group_id"],
        )
        for row, inputs in zip(table.to_dict("records"), _inputs(run, table), strict=True)
    ]


def _background(run: ActiveRun) -> dict[str, np.ndarray]:
    """Model inputs of a few training images."""
    inputs = _inputs(run, _chosen(run, "train", BACKGROUND))
    return {name: np.stack([item[name] for item in inputs]) for name in inputs[0]}


def _inputs(run: ActiveRun, table: pd.DataFrame) -> list[dict[str, np.ndarray]]:
    return [inputs for inputs, _ in run.batches(table).unbatch().as_numpy_iterator()]
