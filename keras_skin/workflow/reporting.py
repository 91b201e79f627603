"""Gathers what a run made into figures and one page."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from keras_skin.data.images.load import load_image, load_mask
from keras_skin.evaluation.evaluate import Evaluation
from keras_skin.evaluation.report import Picture, ReportContext, write_report
from keras_skin.experiment import Experiment
from keras_skin.explain.callback import Explanations
from keras_skin.figures.box_plots import segmentation_box_plots
from keras_skin.figures.class_counts import class_balance, class_counts
from keras_skin.figures.confusion import confusion_matrix
from keras_skin.figures.curriculum import curriculum_figure
from keras_skin.figures.curves import roc_and_precision_recall
from keras_skin.figures.examples import examples_figure
from keras_skin.figures.learning import learning_curves
from keras_skin.figures.segmentation_sheet import LoadImage, segmentation_sheet
from keras_skin.workflow.folder import RunFolder, RunOptions
from keras_skin.workflow.prepare import PreparedData

if TYPE_CHECKING:
    from keras_skin.workflow.training import Trained

log = logging.getLogger("keras_skin")


def write_figures_and_report(
    folder: RunFolder,
    experiment: Experiment,
    options: RunOptions,
    prepared: PreparedData,
    trained: Trained,
    evaluations: dict[str, Evaluation],
    explained: Explanations,
    pictures: Sequence[Picture],
    facts: dict[str, str],
) -> None:
    """Draws every figure of a run that needs no model, and writes report.html: with the `pictures` that needed it behind them,
    and the `facts` of the training in its summary."""
    log.info("Drawing figures and writing the report")
    result = trained.result
    drawn = _training_figures(folder, prepared, trained, options.demo) + _measured_figures(
        folder, prepared, evaluations, options.demo
    )
    summary = {
        "Model": _model(experiment),
        **facts,
        "Input size": f"{experiment.image.size[0]} x {experiment.image.size[1]} pixels",
        "Epochs": f"{len(result.history)} of {experiment.train.epochs}",
        "Best epoch": f"{result.best_epoch} ({result.monitor}: {_rounded(result.best_value)})",
        "Seed": str(experiment.train.seed),
        "Training time": f"{result.history['seconds'].sum() / 60:.1f} min",
    }
    if options.dry_run:
        summary["Dry run"] = "two batches of everything: the numbers mean nothing"
    context = ReportContext(
        title=experiment.title,
        metrics={split: evaluation.metrics for split, evaluation in evaluations.items()},
        warnings=[prepared.warning] if prepared.warning else [],
        description=experiment.description,
        synthetic=options.demo,
        summary=summary,
        data=_data_table(prepared),
        excluded=prepared.excluded,
        notes=list(prepared.notes),
        evaluation_notes={split: list(evaluation.notes) for split, evaluation in evaluations.items()},
        paper=experiment.paper.model_dump() if experiment.paper else None,
        figures=[*drawn, *pictures],
        explanations=[Picture(sheet.path, sheet.caption) for sheet in explained.sheets],
        explanation_metrics=explained.metrics,
        explanation_warnings=explained.warnings,
        environment=folder.read_json("environment.json"),
        experiment=folder.read_json("experiment.json"),
        commands=_commands(folder, experiment),
        citation=_citation(experiment),
    )
    write_report(folder / "report.html", context)


def write_cross_validation_report(
    folder: RunFolder, experiment: Experiment, options: RunOptions, evaluation: Evaluation, folds: Sequence[dict[str, Any]]
) -> None:
    """Report of a cross-validation: pooled out-of-fold numbers, and each fold's own beside them."""
    drawn = _split_figures(folder, "test", evaluation, options.demo)
    table = pd.DataFrame(
        [
            {
                "fold": number,
                **{
                    f"{metric}": _rounded(values["value"])
                    for task in metrics["test"].values()
                    for metric, values in task.items()
                    if metric in ("dsc", "iou", "accuracy", "f1_weighted", "auc")
                },
            }
            for number, metrics in enumerate(folds, start=1)
        ]
    )
    context = ReportContext(
        title=experiment.title,
        metrics={"test": evaluation.metrics},
        warnings=evaluation.notes[:1] if experiment.split.protocol == "paper" else [],
        description=experiment.description,
        synthetic=options.demo,
        summary={
            "Model": experiment.model.name,
            "Folds": str(len(folds)),
            "Test": "each image once, by the model of the fold that never saw it",
        },
        data=table,
        notes=[f"Each fold has its own complete report in fold_1 to fold_{len(folds)}."],
        evaluation_notes={"test": list(evaluation.notes)},
        paper=experiment.paper.model_dump() if experiment.paper else None,
        figures=drawn,
        environment=folder.read_json("environment.json"),
        experiment=folder.read_json("experiment.json"),
        citation=_citation(experiment),
    )
    write_report(folder / "report.html", context)


def _training_figures(folder: RunFolder, prepared: PreparedData, trained: Trained, synthetic: bool) -> list[Picture]:
    result = trained.result
    curves = learning_curves(result.history, folder / "figures" / "learning_curves.png", result.best_epoch, synthetic)
    counts = prepared.table.groupby(["label", "split"]).size().unstack(fill_value=0)
    counts = counts.reindex(index=list(prepared.classes), columns=["train", *prepared.tested], fill_value=0)
    bars = class_counts(counts, folder / "figures" / "class_counts.png", synthetic)
    drawn = [
        Picture(curves, "Learning curves; the dotted line marks the epoch whose weights were kept."),
        Picture(bars, "Images of each class in each part, before augmentation."),
    ]
    before = {str(name): int(count) for name, count in prepared.part("train")["label"].value_counts().items()}
    if set(before) == set(trained.samples) and before != trained.samples:
        file = class_balance(before, trained.samples, folder / "figures" / "class_balance.png", synthetic)
        drawn.append(Picture(file, "Training images of each class, and samples that an epoch shows of it."))
    if trained.curriculum is not None:
        admitted, replayed = trained.curriculum
        images = {name: before.get(name, 0) for name in prepared.classes}
        sheet = curriculum_figure(admitted, replayed, images, folder / "figures" / "curriculum.png", synthetic)
        if sheet:
            drawn.append(Picture(sheet, "When images of each class were admitted, and what was replayed."))
    return drawn


def _measured_figures(
    folder: RunFolder, prepared: PreparedData, evaluations: dict[str, Evaluation], synthetic: bool
) -> list[Picture]:
    drawn: list[Picture] = []
    boxes = segmentation_box_plots(
        {split: item.predictions for split, item in evaluations.items()},
        folder / "figures" / "segmentation_box_plots.png",
        synthetic=synthetic,
    )
    if boxes:
        drawn.append(Picture(boxes, "Segmentation scores of every image."))
    for split, evaluation in evaluations.items():
        drawn += _split_figures(folder, split, evaluation, synthetic)
        drawn += _examples(folder, prepared, split, evaluation, synthetic)
        if "dsc" not in evaluation.predictions:
            continue
        paths = prepared.part(split).set_index("image_id")[["image", "mask"]]
        sheet = segmentation_sheet(
            evaluation.predictions,
            _loader(paths, folder / "masks" / split),
            folder / "figures" / f"{_stem(split)}_segmentations.png",
            title=f"Best, median and worst segmentations, {split}",
            synthetic=synthetic,
        )
        if sheet:
            drawn.append(Picture(sheet, f"Best, median and worst segmentations of {split}."))
    return drawn


def _split_figures(folder: RunFolder, split: str, evaluation: Evaluation, synthetic: bool) -> list[Picture]:
    if evaluation.confusion is None:
        return []
    target = folder / "figures"
    matrix = confusion_matrix(
        evaluation.confusion, evaluation.classes, target / f"{_stem(split)}_confusion.png", f"Confusion, {split}", synthetic
    )
    curves = roc_and_precision_recall(
        evaluation.predictions, evaluation.classes, target / f"{_stem(split)}_roc_pr.png", split, synthetic
    )
    return [
        Picture(matrix, f"Confusion matrix of {split}."),
        *([Picture(curves, f"ROC and precision-recall curves of {split}.")] if curves else []),
    ]


def _examples(folder: RunFolder, prepared: PreparedData, split: str, evaluation: Evaluation, synthetic: bool) -> list[Picture]:
    if evaluation.confusion is None:
        return []
    paths = prepared.part(split).set_index("image_id")["image"]
    sheet = examples_figure(
        evaluation.predictions,
        evaluation.classes,
        lambda image_id: load_image(paths[image_id]).numpy().astype(np.uint8),
        folder / "figures" / f"{_stem(split)}_examples.png",
        title=f"Right and wrong, the surest of each true class in turn, {split}",
        synthetic=synthetic,
    )
    return [Picture(sheet, f"Right and wrong examples of {split}, with the probability of the predicted class.")] if sheet else []


def _loader(paths: pd.DataFrame, masks: Path) -> LoadImage:
    """Image, true and predicted mask of an id, all at the original size."""

    def load(image_id: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        image = load_image(paths.loc[image_id, "image"]).numpy().astype(np.uint8)
        truth = load_mask(paths.loc[image_id, "mask"]).numpy()[..., 0] > 0.5
        predicted = load_mask(str(masks / f"{image_id}.png")).numpy()[..., 0] > 0.5
        return image, truth, predicted

    return load


def _data_table(prepared: PreparedData) -> pd.DataFrame:
    counts = prepared.table.groupby(["split", "dataset", "label"], sort=False).size().unstack(fill_value=0)
    counts = counts.reindex(columns=[*prepared.classes, *([""] if "" in counts else [])]).rename(columns={"": "no label"})
    order = {split: number for number, split in enumerate(["train", *prepared.tested])}
    table = counts.assign(images=counts.sum(axis=1)).reset_index().rename(columns={"split": "part", "dataset": "data set"})
    return table.sort_values("part", key=lambda column: column.map(order), kind="stable", ignore_index=True)


def _commands(folder: RunFolder, experiment: Experiment) -> dict[str, str]:
    commands = {"Run this experiment again": f"python -m keras_skin.run {folder.path / 'experiment.json'}"}
    if experiment.export.enabled:
        commands["Look at the exported model's signatures"] = (
            f"saved_model_cli show --dir {folder.path / 'saved_model' / '1'} --all"
        )
    return commands


def _model(experiment: Experiment) -> str:
    arguments = ", ".join(f"{key} {value}" for key, value in experiment.model.arguments.items())
    return f"{experiment.model.name}, {arguments}" if arguments else experiment.model.name


def _citation(experiment: Experiment) -> str:
    return experiment.paper.citation if experiment.paper else ""


def _stem(split: str) -> str:
    return split.replace("/", "_")


def _rounded(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"
