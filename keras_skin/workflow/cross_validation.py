"""Cross-validation: one complete run per fold, and the out-of-fold predictions of all folds measured together."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import pandas as pd

from keras_skin.evaluation.evaluate import stamped, summarise
from keras_skin.evaluation.run_report import write_run_report
from keras_skin.registry import UserError
from keras_skin.run_folder import RunFolder
from keras_skin.workflow.drawing import Figures, class_figures, write_report_facts
from keras_skin.workflow.environment import environment
from keras_skin.workflow.steps import STAMP, execute

log = logging.getLogger("keras_skin")


def execute_folds(folder: RunFolder, data_dir: Path | None, resume: bool = False) -> dict[str, Any]:
    """Runs every fold in `fold_1`, `fold_2`, ... and pools their test predictions: each image is tested once, by a model
    that never saw it.

    A resumed run skips complete folds.

    Returns:
        The pooled metrics under `test`, as written to metrics.json.
    """
    experiment = folder.experiment
    if experiment.data.test is not None:
        raise UserError("split.scheme 'kfold' makes every image a test image once; data.test must be null (use data.external).")
    folder.write_json("environment.json", environment())
    for number in range(1, experiment.split.folds + 1):
        fold = RunFolder(folder / f"fold_{number}")
        fold.path.mkdir(exist_ok=True)
        if (fold / "run.json").is_file() and fold.finished:
            log.info("Fold %d of %d is complete", number, experiment.split.folds)
            continue
        log.info("Fold %d of %d", number, experiment.split.folds)
        fold.write_text("experiment.json", experiment.to_json())
        if not (fold / "run.json").is_file():
            first = folder.folds[0].record if number > 1 else {}
            precision = {"precision": first["precision"]} if "precision" in first else {}  # the same for all folds
            fold.write_json("run.json", {**asdict(folder.options), "finished": False, **precision})
        execute(fold, data_dir, fold=number - 1, resume=resume)
        fold.update_record(finished=True)
        keras.backend.clear_session()
    pooled = pd.concat([_test_predictions(fold, number) for number, fold in enumerate(folder.folds, 1)], ignore_index=True)
    evaluation = summarise(pooled, folder.classes, groups=pooled["group_id"].tolist(), seed=experiment.train.seed)
    if experiment.split.protocol == "paper":
        warning = f"Of the first fold: {folder.folds[0].warning}"
        evaluation = stamped(evaluation, STAMP, warning)
        folder.update_record(warning=warning)
    metrics = {"test": evaluation.metrics}
    folder.write_json("metrics.json", metrics)
    folder.write_table("predictions.csv", evaluation.predictions)
    folder.write_table("splits.csv", pooled[["dataset", "image_id", "group_id", "label", "fold"]])
    figures = Figures(folder)
    class_figures(figures, "test", evaluation)
    summary = {
        "Model": experiment.model.name,
        "Folds": str(experiment.split.folds),
        "Test": "each image once, by the model of the fold that never saw it",
    }
    notes = [f"Each fold has its own complete report in fold_1 to fold_{experiment.split.folds}."]
    write_report_facts(folder, summary, notes, {"test": evaluation}, figures)
    write_run_report(folder)
    return metrics


def _test_predictions(fold: RunFolder, number: int) -> pd.DataFrame:
    predictions, groups = fold.predictions, fold.splits.set_index("image_id")["group_id"]
    predictions = predictions[predictions["split"] == "test"]
    return predictions.assign(group_id=predictions["image_id"].map(groups), fold=number)
