"""Cross-validation: one complete run per fold, and the out-of-fold predictions of all folds measured together."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import Any

import keras
import pandas as pd

from keras_skin.evaluation.evaluate import stamped, summarise
from keras_skin.experiment import Experiment
from keras_skin.registry import UserError
from keras_skin.workflow.folder import RunFolder, RunOptions, environment
from keras_skin.workflow.reporting import write_cross_validation_report
from keras_skin.workflow.steps import STAMP, execute

log = logging.getLogger("keras_skin")


def execute_folds(folder: RunFolder, experiment: Experiment, options: RunOptions, resume: bool = False) -> dict[str, Any]:
    """Runs every fold in `fold_1`, `fold_2`, ... and pools their test predictions: each image is tested once, by a model
    that never saw it.

    Folds that are complete are not run again when a run is resumed.

    Returns:
        The pooled metrics under `test`, as written to metrics.json.
    """
    if experiment.data.test is not None:
        raise UserError("split.scheme 'kfold' makes every image a test image once; data.test must be null (use data.external).")
    folder.write_json("environment.json", environment())
    for fold in range(experiment.split.folds):
        part = folder.fold(fold + 1)
        if (part / "run.json").is_file() and part.read_json("run.json")["finished"]:
            log.info("Fold %d of %d is complete", fold + 1, experiment.split.folds)
            continue
        log.info("Fold %d of %d", fold + 1, experiment.split.folds)
        part.write_text("experiment.json", experiment.to_json())
        part.write_json("run.json", {**asdict(options), "finished": False})
        execute(part, experiment, options, fold=fold, resume=resume)
        part.write_json("run.json", {**part.read_json("run.json"), "finished": True})
        keras.backend.clear_session()
    folds = [folder.fold(fold + 1) for fold in range(experiment.split.folds)]
    pooled = pd.concat([_test_predictions(part, number) for number, part in enumerate(folds, start=1)], ignore_index=True)
    classes = tuple(folds[0].read_json("run.json")["classes"])
    evaluation = summarise(pooled, classes, groups=pooled["group_id"].tolist(), seed=experiment.train.seed)
    if experiment.split.protocol == "paper":
        evaluation = stamped(evaluation, STAMP, f"Of the first fold: {folds[0].read_json('run.json')['warning']}")
    metrics = {"test": evaluation.metrics}
    folder.write_json("metrics.json", metrics)
    folder.write_table("predictions.csv", evaluation.predictions)
    folder.write_table("splits.csv", pooled[["dataset", "image_id", "group_id", "label", "fold"]])
    write_cross_validation_report(folder, experiment, options, evaluation, [part.read_json("metrics.json") for part in folds])
    return metrics


def _test_predictions(part: RunFolder, number: int) -> pd.DataFrame:
    predictions = pd.read_csv(part / "predictions.csv", dtype={"image_id": str}, keep_default_na=True)
    groups = pd.read_csv(part / "splits.csv", dtype=str, keep_default_na=False).set_index("image_id")["group_id"]
    predictions = predictions[predictions["split"] == "test"]
    return predictions.assign(group_id=predictions["image_id"].map(groups), fold=number)
