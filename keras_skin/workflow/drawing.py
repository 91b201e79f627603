"""The figures of a run, and the facts that its report shows beside them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from keras_skin.data.images.load import load_image, load_mask
from keras_skin.evaluation.evaluate import Evaluation
from keras_skin.evaluation.latency import describe_latency
from keras_skin.evaluation.run_report import REPORT
from keras_skin.explain.callback import Explanations
from keras_skin.figures.box_plots import segmentation_box_plots
from keras_skin.figures.class_charts import class_chart
from keras_skin.figures.class_counts import class_balance, class_counts
from keras_skin.figures.class_examples import class_examples
from keras_skin.figures.confusion import confusion_matrix
from keras_skin.figures.curriculum import curriculum_figure
from keras_skin.figures.curves import roc_and_precision_recall
from keras_skin.figures.examples import examples_figure
from keras_skin.figures.learning import learning_curves
from keras_skin.figures.samples import choose_samples, samples_figure
from keras_skin.figures.segmentation_sheet import segmentation_sheet
from keras_skin.run_folder import LATENCY, RunFolder
from keras_skin.training.monitor import LAST
from keras_skin.workflow.initial import describe_start
from keras_skin.workflow.model_figures import model_figures
from keras_skin.workflow.opened_run import ActiveRun
from keras_skin.workflow.predictor import describe_prediction
from keras_skin.workflow.segmenter import describe_segmenter
from keras_skin.workflow.training import Trained

log = logging.getLogger("keras_skin")

CHARTS = {
    "class_scores": ("Precision, recall and F1", ("precision", "tpr", "f1")),
    "class_specificity": ("Specificity and accuracy", ("tnr", "accuracy")),
}
"""Charts of several classes: name, subject and metrics."""


@dataclass
class Figures:
    """The figures of one run, with the sentence below each.

    Attributes:
        run: whose `figures/` they are drawn into.
        captions: file below the run's folder -> caption, in the order of the report.
    """

    run: RunFolder
    captions: dict[str, str] = field(default_factory=dict)

    def path(self, name: str) -> Path:
        """The file of the figure of this name."""
        return self.run / "figures" / f"{name.replace('/', '_')}.png"

    def add(self, file: Path | None, caption: str) -> None:
        """Adds a figure; None, which a figure function returns where there is nothing to draw, is ignored."""
        if file is not None:
            self.captions[file.relative_to(self.run.path).as_posix()] = caption


def draw(
    run: ActiveRun,
    training: Trained,
    evaluations: Mapping[str, Evaluation],
    explanations: Explanations,
    warnings: Sequence[str] = (),
) -> None:
    """Draws every figure, and writes report.json: what the report shows beside the other files of the folder."""
    log.info("Drawing figures and writing the report")
    figures = Figures(run)
    _training_figures(figures, run, training)
    _measured_figures(figures, run, evaluations)
    for file, caption in model_figures(run, evaluations):
        figures.add(file, caption)
    sheets = Figures(run)
    for sheet in explanations.sheets:
        sheets.add(sheet.path, sheet.caption)
    write_report_facts(
        run,
        _summary(run, training),
        list(run.data.notes),
        evaluations,
        figures,
        sheets,
        explanations.warnings,
        warnings,
    )


def write_report_facts(
    folder: RunFolder,
    summary: Mapping[str, str],
    notes: Sequence[str],
    evaluations: Mapping[str, Evaluation],
    figures: Figures,
    sheets: Figures | None = None,
    explanation_warnings: Sequence[str] = (),
    warnings: Sequence[str] = (),
) -> None:
    """Writes report.json, which `write_run_report` reads."""
    folder.write_json(
        REPORT,
        {
            "summary": dict(summary),
            "notes": list(notes),
            "evaluation_notes": {split: list(evaluation.notes) for split, evaluation in evaluations.items()},
            "figures": figures.captions,
            "explanations": sheets.captions if sheets else {},
            "explanation_warnings": list(explanation_warnings),
            "warnings": list(warnings),
        },
    )


def class_figures(figures: Figures, split: str, evaluation: Evaluation) -> None:
    """Draws the confusion matrix, the metrics of each class and the curves of one split, where it has labels."""
    if evaluation.confusion is None:
        return
    classes, synthetic = evaluation.classes, figures.run.synthetic
    file = confusion_matrix(evaluation.confusion, classes, figures.path(f"{split}_confusion"), f"Confusion, {split}", synthetic)
    figures.add(file, f"Confusion matrix of {split}.")
    curves = roc_and_precision_recall(evaluation.predictions, classes, figures.path(f"{split}_roc_pr"), split, synthetic)
    figures.add(curves, f"ROC and precision-recall curves of {split}.")
    if len(classes) > 2:
        for name, (subject, measures) in CHARTS.items():
            title = f"{subject} of each class, {split}"
            metrics = evaluation.metrics["classification"]
            chart = class_chart(metrics, measures, classes, figures.path(f"{split}_{name}"), title, synthetic)
            figures.add(chart, f"{title}, against all other classes, with 95 % intervals.")


def _summary(run: ActiveRun, training: Trained) -> dict[str, str]:
    experiment, result = run.experiment, training.result
    arguments = [f"{key} {value}" for key, value in experiment.model.arguments.items()]
    best_epoch = f"{result.best_epoch} ({result.monitor}: {'none' if result.best_value is None else f'{result.best_value:.4f}'})"
    return {
        "Model": ", ".join([experiment.model.name, *arguments]),
        "Parameters": f"{run.model.count_params():,}",
        "Training precision": run.precision,
        "Training images seen": training.coverage,
        **describe_start(run),
        **describe_segmenter(run),
        **describe_prediction(run),
        **describe_latency(run.read_json(LATENCY)),
        "Input size": f"{experiment.image.size[0]} x {experiment.image.size[1]} pixels",
        "Epochs": f"{len(result.history)} of {experiment.train.epochs}",
        **({"Kept epoch": "the last one"} if experiment.train.monitor == LAST else {"Best epoch": best_epoch}),
        "Seed": str(experiment.train.seed),
        "Training time": f"{result.history['seconds'].sum() / 60:.1f} min",
    }


def _training_figures(figures: Figures, run: ActiveRun, training: Trained) -> None:
    data, result, synthetic = run.data, training.result, run.synthetic
    is_last = run.experiment.train.monitor == LAST
    curves = learning_curves(result.history, figures.path("learning_curves"), None if is_last else result.best_epoch, synthetic)
    which_weights = (
        "the weights are those of the last epoch" if is_last else "the dotted line marks the epoch with the best weights"
    )
    figures.add(curves, f"Learning curves; {which_weights}.")
    counts = data.table.groupby(["label", "split"]).size().unstack(fill_value=0)
    counts = counts.reindex(index=list(data.classes), columns=["train", *data.tested], fill_value=0)
    figures.add(class_counts(counts, figures.path("class_counts"), synthetic), "Images of each class in each split.")
    samples = samples_figure(
        choose_samples(data.table, data.classes),
        lambda image, mask: (_picture(image), load_mask(mask).numpy()[..., 0] > 0.5),
        figures.path("samples"),
        synthetic=synthetic,
    )
    figures.add(
        samples,
        "Two images of each data set and class, with the mask and the boundary of the lesion: training images, or measured ones "
        "of data sets that are not trained on.",
    )
    before = {str(name): int(count) for name, count in data.rows("train")["label"].value_counts().items()}
    if set(before) == set(training.samples) and before != training.samples:
        balance = class_balance(before, training.samples, figures.path("class_balance"), synthetic)
        figures.add(balance, "Training images of each class, and samples of each class in one epoch.")
    if training.curriculum is not None:
        admitted, replayed = training.curriculum
        images = {name: before.get(name, 0) for name in data.classes}
        sheet = curriculum_figure(admitted, replayed, images, figures.path("curriculum"), synthetic)
        figures.add(sheet, "Admitted images of each class, and replayed samples, per epoch.")


def _measured_figures(figures: Figures, run: ActiveRun, evaluations: Mapping[str, Evaluation]) -> None:
    predictions = {split: evaluation.predictions for split, evaluation in evaluations.items()}
    boxes = segmentation_box_plots(predictions, figures.path("segmentation_box_plots"), synthetic=run.synthetic)
    figures.add(boxes, "Segmentation scores of every image.")
    for split, evaluation in evaluations.items():
        class_figures(figures, split, evaluation)
        files = run.data.rows(split).set_index("image_id")
        if evaluation.confusion is not None:
            sheet = examples_figure(
                evaluation.predictions,
                evaluation.classes,
                lambda image_id, files=files: _picture(str(files.loc[image_id, "image"])),  # type: ignore[misc]
                figures.path(f"{split}_examples"),
                title=f"Right and wrong, the most confident of each true class in turn, {split}",
                synthetic=run.synthetic,
            )
            figures.add(sheet, f"Right and wrong examples of {split}, with the probability of the predicted class.")
        if "dsc" in evaluation.predictions:
            sheet = segmentation_sheet(
                evaluation.predictions,
                _loader(files, run.masks(split)),
                figures.path(f"{split}_segmentations"),
                title=f"Best, median and worst segmentations, {split}",
                synthetic=run.synthetic,
            )
            figures.add(sheet, f"Best, median and worst segmentations of {split}.")
            if evaluation.confusion is not None:
                sheet = class_examples(
                    evaluation.predictions,
                    evaluation.classes,
                    _loader(files, run.masks(split)),
                    figures.path(f"{split}_class_examples"),
                    title=f"An example of each class, {split}",
                    synthetic=run.synthetic,
                )
                figures.add(sheet, f"An example of each class of {split}, that of median DSC, with the predicted class.")


def _loader(files: pd.DataFrame, masks: Path) -> Callable[[str], tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Loads image, true and predicted mask of an id, all at the original size."""

    def load(image_id: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        truth, predicted = (
            load_mask(path).numpy()[..., 0] > 0.5 for path in (files.loc[image_id, "mask"], str(masks / f"{image_id}.png"))
        )
        return _picture(str(files.loc[image_id, "image"])), truth, predicted

    return load


def _picture(path: str) -> np.ndarray:
    return load_image(path).numpy().astype(np.uint8)
