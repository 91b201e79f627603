"""One run from data to report: prepare, build, train, measure, explain, export, report."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from keras_skin import models
from keras_skin.data import augment, images, pipeline, preprocess, splits
from keras_skin.evaluation.evaluate import Evaluation, evaluate, stamped
from keras_skin.experiment import Experiment
from keras_skin.explain.callback import ExplainSample, GradCAMCallback, Sheet, stratified_sample
from keras_skin.export.saved_model import export_model
from keras_skin.registry import UserError
from keras_skin.training.compile import compile_model
from keras_skin.training.fit import BEST_WEIGHTS, TrainingResult, fit
from keras_skin.training.optimizers import make_optimizer
from keras_skin.training.precision import choose_precision, set_determinism
from keras_skin.workflow.folder import RunFolder, environment
from keras_skin.workflow.prepare import PreparedData, describe, prepare_data, shorten
from keras_skin.workflow.reporting import write_figures_and_report

log = logging.getLogger("keras_skin")

DRY_RUN_BATCHES = 2
STAMP = "groups may straddle"


@dataclass(frozen=True)
class RunOptions:
    """What the command line says beside the experiment; kept in run.json, so that a resumed run goes on in the same way."""

    data_dir: str | None
    demo: bool = False
    dry_run: bool = False


def execute(
    folder: RunFolder, experiment: Experiment, options: RunOptions, fold: int = 0, resume: bool = False
) -> dict[str, Any]:
    """Runs the experiment (one fold of it) in its folder.

    Returns:
        The metrics, as written to metrics.json.
    """
    set_determinism(experiment.train.seed, experiment.train.deterministic)
    folder.write_json("environment.json", environment())
    prepared = _prepare(folder, experiment, options, fold, resume)
    classes = prepared.classes

    precision = choose_precision(experiment.train.precision)
    model = build_model(experiment, len(classes), precision)
    result, seen = _train(folder, experiment, model, prepared, resume)
    model = _as_float32(experiment, model, len(classes), precision)

    evaluations = {split: _evaluate(folder, experiment, model, prepared, split) for split in prepared.tested}
    metrics = {split: evaluation.metrics for split, evaluation in evaluations.items()}
    folder.write_json("metrics.json", metrics)
    folder.write_table(
        "predictions.csv", pd.concat([evaluation.predictions for evaluation in evaluations.values()], ignore_index=True)
    )
    sheets = _explain(folder, experiment, model, prepared, options.demo)
    if experiment.export.enabled:
        _export(folder, experiment, model, prepared, options.demo)
    write_figures_and_report(
        folder,
        experiment,
        options,
        prepared,
        result,
        evaluations,
        sheets,
        {"Parameters": f"{model.count_params():,}", "Training precision": precision, "Training images seen": seen},
    )
    return metrics


def build_model(experiment: Experiment, classes: int, precision: str = "float32") -> keras.Model:
    """The experiment's model under a precision policy; its builder's complaints become a user's message.

    Raises:
        UserError: naming the argument, if the builder refuses one.
    """
    entry = models.get(experiment.model.name)
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        return entry.builder(image_size=experiment.image_size, classes=classes, **experiment.model.arguments)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"The model '{entry.name}' cannot be built from {experiment.model.arguments} at image.size "
            f"{list(experiment.image.size)}: {error}"
        ) from error
    finally:
        keras.config.set_dtype_policy(previous)


def load_mask(path: str) -> np.ndarray:
    """A mask file at its own size, (H, W) bool."""
    return images.load_mask(path).numpy()[..., 0] > 0.5


def _prepare(folder: RunFolder, experiment: Experiment, options: RunOptions, fold: int, resume: bool) -> PreparedData:
    prepared = prepare_data(experiment, Path(options.data_dir) if options.data_dir else None, fold)
    if options.dry_run:
        prepared = shorten(prepared, DRY_RUN_BATCHES * experiment.train.batch_size)
    if resume and (folder / "splits.csv").is_file():
        _same_splits(folder / "splits.csv", prepared)
    splits.write_splits(prepared.table, folder / "splits.csv")
    folder.write_table("excluded.csv", prepared.excluded)
    folder.write_json(
        "run.json", {**folder.read_json("run.json"), "classes": list(prepared.classes), "warning": prepared.warning}
    )
    for note in prepared.notes:
        log.info("%s", note)
    log.info("Images:\n%s", describe(prepared))
    return prepared


def _same_splits(path: Path, prepared: PreparedData) -> None:
    """A run must be resumed on the images it began with."""
    columns = ["dataset", "image_id", "split"]
    before = set(splits.read_splits(path)[columns].itertuples(index=False, name=None))
    now = set(prepared.table[columns].itertuples(index=False, name=None))
    if before != now:
        examples = ", ".join(sorted(f"{item[1]} ({item[0]}, {item[2]})" for item in before ^ now)[:5])
        raise UserError(
            f"The data are not those this run began with: {len(before - now)} images are missing or moved, "
            f"{len(now - before)} are new "
            f"({examples} ...). Give the same --data, or begin a new run."
        )


def _train(
    folder: RunFolder, experiment: Experiment, model: keras.Model, prepared: PreparedData, resume: bool
) -> tuple[TrainingResult, str]:
    """Trains the model; returns the result and how many of the training images were seen."""
    settings = experiment.train
    train = prepared.part("train")
    data = pipeline.training_data(
        train,
        prepared.classes,
        experiment.image_size,
        list(model.input),
        list(model.output),
        settings.batch_size,
        seed=settings.seed,
        augmentation=augment.get(experiment.augmentation.name).builder(**experiment.augmentation.arguments),
        preprocessing=preprocessing(experiment),
        steps_per_epoch=settings.steps_per_epoch,
        cache=settings.cache,
    )
    losses = experiment.loss_settings
    if experiment.balancing.name == "class_weights" and "label" in losses:
        losses["label"]["class_weights"] = class_weights(train, prepared.classes)
    optimizer = make_optimizer(
        settings.optimizer.model_dump(), settings.schedule.model_dump(exclude_none=True), epochs=settings.epochs, steps=data.steps
    )
    compile_model(model, losses, optimizer=optimizer)
    result = fit(
        model,
        data,
        _batches(experiment, model, prepared.part("validation"), prepared.classes),
        epochs=settings.epochs,
        folder=folder / "checkpoints",
        monitor=settings.monitor,
        patience=settings.early_stopping.patience if settings.early_stopping else None,
        resume=resume,
        history_file=folder / "history.csv",
        save_every_seconds=settings.save_every_seconds,
    )
    different = set().union(*(data.images_seen(epoch) for epoch in range(len(result.history))))
    seen = f"{len(different)} of {len(train)}"
    log.info("Training images seen: %s", seen)
    return result, seen


def class_weights(train: pd.DataFrame, classes: tuple[str, ...]) -> list[float]:
    """Inverse class frequencies of the training part, with mean 1 over its images.

    Raises:
        UserError: if a class has no training image.
    """
    counts = train["label"].value_counts().reindex(list(classes), fill_value=0)
    if (counts == 0).any():
        raise UserError(f"balancing 'class_weights': no training image of {', '.join(counts.index[counts == 0])}.")
    return [float(len(train) / (len(classes) * count)) for count in counts]


def _batches(experiment: Experiment, model: keras.Model, table: pd.DataFrame, classes: tuple[str, ...]) -> tf.data.Dataset:
    return pipeline.evaluation_data(
        table,
        classes,
        experiment.image_size,
        list(model.input),
        list(model.output),
        experiment.train.batch_size,
        preprocessing=preprocessing(experiment),
    )


def preprocessing(experiment: Experiment) -> list[Callable[[tf.Tensor], tf.Tensor]]:
    """The operations that the experiment puts between resizing and the model."""
    return [preprocess.get(item.name).builder(**item.arguments) for item in experiment.image.preprocessing]


def _as_float32(experiment: Experiment, model: keras.Model, classes: int, precision: str) -> keras.Model:
    """The trained weights in a float32 model: measured, explained and exported are one and the same function."""
    if precision == "float32":
        return model
    exact = build_model(experiment, classes)
    exact.set_weights(model.get_weights())
    return exact


def _predictor(model: keras.Model) -> Callable[[Mapping[str, Any]], dict[str, np.ndarray]]:
    call = tf.function(functools.partial(model, training=False), reduce_retracing=True)
    return lambda inputs: {key: value.numpy() for key, value in call(dict(inputs)).items()}


def _evaluate(folder: RunFolder, experiment: Experiment, model: keras.Model, prepared: PreparedData, split: str) -> Evaluation:
    log.info("Measuring on %s", split)
    table = prepared.part(split)
    evaluation = evaluate(
        _predictor(model),
        _batches(experiment, model, table, prepared.classes),
        table,
        prepared.classes,
        load_mask,
        folder / "masks" / split,
        groups=table["group_id"].tolist(),
        seed=experiment.train.seed,
    )
    if prepared.warning and split in _parted_together(experiment):
        evaluation = stamped(evaluation, STAMP, prepared.warning)
    for note in evaluation.notes:
        log.info("%s: %s", split, note)
    return evaluation


def _parted_together(experiment: Experiment) -> tuple[str, ...]:
    """The parts that the training images' own data set was parted into; others are apart, whatever the protocol."""
    return ("validation",) if experiment.data.test else ("validation", "test")


def _explain(
    folder: RunFolder, experiment: Experiment, model: keras.Model, prepared: PreparedData, synthetic: bool
) -> list[Sheet]:
    if not experiment.explain.images:
        return []
    log.info("Explaining %d validation images with Grad-CAM", experiment.explain.images)
    table = prepared.part("validation")
    table = table.iloc[stratified_sample(table["label"].tolist(), experiment.explain.images, experiment.train.seed)].reset_index(
        drop=True
    )
    inputs = _batches(experiment, model, table, prepared.classes).unbatch().as_numpy_iterator()
    samples = [
        ExplainSample(
            row["image_id"],
            seen,
            prepared.classes.index(row["label"]) if row["label"] else None,
            load_mask(row["mask"]) if row["mask"] else None,
        )
        for row, (seen, _) in zip(table.to_dict("records"), inputs, strict=True)
    ]
    explainer = GradCAMCallback(
        samples,
        folder / "explain",
        prepared.classes,
        explain_classes=experiment.explain.classes,
        layer=experiment.explain.layer,
        synthetic=synthetic,
    )
    return explainer.explain(model)


def _export(folder: RunFolder, experiment: Experiment, model: keras.Model, prepared: PreparedData, synthetic: bool) -> None:
    if (folder / "saved_model" / "1").exists():
        log.info("The SavedModel is there already")
        return
    log.info("Writing the SavedModel")
    trained_on = {name: int(count) for name, count in prepared.part("train")["dataset"].value_counts().items()}
    export_model(
        model,
        folder / "saved_model",
        classes=prepared.classes,
        image_size=experiment.image_size,
        name=experiment.model.name,
        preprocessing=preprocessing(experiment),
        synthetic=synthetic,
        extra={"title": experiment.title, "trained_on": trained_on},
        version=1,
    )


@dataclass(frozen=True)
class Run:
    """A finished run, opened.

    Attributes:
        folder: the run's folder.
        experiment: what was run, fully resolved.
        classes: labels in the order of the model's outputs.
        model: the model with its best weights, in float32.
        metrics: the content of metrics.json.
    """

    folder: Path
    experiment: Experiment
    classes: tuple[str, ...]
    model: keras.Model
    metrics: dict[str, Any]


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
    model = build_model(experiment, len(classes))
    model.load_weights(weights)
    return Run(opened.path, experiment, classes, model, opened.read_json("metrics.json"))
