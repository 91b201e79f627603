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
from keras_skin.data import images, splits
from keras_skin.data.metadata import MetadataEncoder
from keras_skin.data.preprocess import refuse_export
from keras_skin.evaluation.evaluate import Evaluation, evaluate, stamped
from keras_skin.evaluation.latency import describe_latency, measure_latency
from keras_skin.experiment import Experiment
from keras_skin.explain.callback import ExplainSample, GradCAMCallback, Sheet, stratified_sample
from keras_skin.export.saved_model import SERVED, export_model
from keras_skin.registry import UserError
from keras_skin.training.fit import BEST_WEIGHTS, RUN_STATE
from keras_skin.training.precision import choose_precision, set_determinism
from keras_skin.workflow.folder import RunFolder, environment
from keras_skin.workflow.model_figures import model_figures
from keras_skin.workflow.prepare import PreparedData, describe, prepare_data, shorten
from keras_skin.workflow.reporting import write_figures_and_report
from keras_skin.workflow.training import evaluation_batches, preprocessing, train

log = logging.getLogger("keras_skin")

DRY_RUN_BATCHES = 2
METADATA = "metadata.json"
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
    if experiment.export.enabled:
        refuse_export(preprocessing(experiment))
    set_determinism(experiment.train.seed, experiment.train.deterministic)
    folder.write_json("environment.json", environment())
    prepared = _prepare(folder, experiment, options, fold, resume)
    classes = prepared.classes

    precision = choose_precision(experiment.train.precision)
    begun = resume and (folder / "checkpoints" / RUN_STATE).is_file()
    model = build_model(experiment, len(classes), prepared.model_arguments, precision, pretrained=not begun)
    trained = train(folder, experiment, model, prepared, resume)
    model = _as_float32(experiment, model, prepared, precision)

    evaluations = {split: _evaluate(folder, experiment, model, prepared, split) for split in prepared.tested}
    metrics = {split: evaluation.metrics for split, evaluation in evaluations.items()}
    folder.write_json("metrics.json", metrics)
    folder.write_table(
        "predictions.csv", pd.concat([evaluation.predictions for evaluation in evaluations.values()], ignore_index=True)
    )
    for split, evaluation in evaluations.items():
        if evaluation.confusion is not None:
            counts = pd.DataFrame(evaluation.confusion, index=list(classes), columns=list(classes))
            folder.write_table(f"confusion_{split.replace('/', '_')}.csv", counts.rename_axis("true class").reset_index())
    latency = _latency(folder, experiment, model, prepared, seconds=0.5 if options.dry_run or options.demo else 3.0)
    folder.write_json("latency.json", latency)
    sheets = _explain(folder, experiment, model, prepared, options.demo)
    if experiment.export.enabled:
        _export(folder, experiment, model, prepared, options.demo)
    write_figures_and_report(
        folder,
        experiment,
        options,
        prepared,
        trained,
        evaluations,
        sheets,
        model_figures(folder, experiment, model, prepared, evaluations, options.demo),
        {
            "Parameters": f"{model.count_params():,}",
            "Training precision": precision,
            "Training images seen": trained.seen,
            **describe_latency(latency),
        },
    )
    return metrics


def build_model(
    experiment: Experiment,
    classes: int,
    from_data: Mapping[str, Any] | None = None,
    precision: str = "float32",
    pretrained: bool = False,
) -> keras.Model:
    """The experiment's model under a precision policy; its builder's complaints become a user's message.

    Args:
        experiment: names the model.
        classes: number of classes.
        from_data: `PreparedData.model_arguments`; the builder gets those that it takes.
        precision: Keras' name of the policy.
        pretrained: whether the weights that the experiment names are loaded; not where others follow anyway.

    Raises:
        UserError: naming the argument, if the builder refuses one.
    """
    entry = models.get(experiment.model.name)
    arguments = experiment.model.arguments
    if not pretrained and "weights" in arguments:
        arguments["weights"] = None
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        taken = models.registry.parameters(entry.name)
        given = {key: value for key, value in (from_data or {}).items() if key in taken}
        return entry.builder(image_size=experiment.image_size, classes=classes, **given, **arguments)
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
    saved = folder / METADATA
    metadata = MetadataEncoder.from_json(saved.read_text(encoding="utf-8")) if resume and saved.is_file() else None
    prepared = prepare_data(experiment, Path(options.data_dir) if options.data_dir else None, fold, metadata)
    if options.dry_run:
        prepared = shorten(prepared, DRY_RUN_BATCHES * experiment.train.batch_size)
    if resume and (folder / "splits.csv").is_file():
        _same_splits(folder / "splits.csv", prepared)
    splits.write_splits(prepared.table, folder / "splits.csv")
    folder.write_table("excluded.csv", prepared.excluded)
    if prepared.metadata is not None:
        folder.write_text(METADATA, prepared.metadata.to_json())
    folder.write_json(
        "run.json",
        {
            **folder.read_json("run.json"),
            "classes": list(prepared.classes),
            "model_arguments": prepared.model_arguments,
            "warning": prepared.warning,
        },
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


def _as_float32(experiment: Experiment, model: keras.Model, prepared: PreparedData, precision: str) -> keras.Model:
    """The trained weights in a float32 model: measured, explained and exported are one and the same function."""
    if precision == "float32":
        return model
    exact = build_model(experiment, len(prepared.classes), prepared.model_arguments)
    exact.set_weights(model.get_weights())
    return exact


def _predictor(model: keras.Model) -> Callable[[Mapping[str, Any]], dict[str, np.ndarray]]:
    served = keras.Model(model.input, {key: model.output[key] for key in SERVED if key in model.output})
    call = tf.function(functools.partial(served, training=False), reduce_retracing=True)
    return lambda inputs: {key: value.numpy() for key, value in call(dict(inputs)).items()}


def _evaluate(folder: RunFolder, experiment: Experiment, model: keras.Model, prepared: PreparedData, split: str) -> Evaluation:
    log.info("Measuring on %s", split)
    table = prepared.part(split)
    evaluation = evaluate(
        _predictor(model),
        evaluation_batches(experiment, model, prepared, table),
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


def _latency(
    folder: RunFolder, experiment: Experiment, model: keras.Model, prepared: PreparedData, seconds: float
) -> dict[str, Any]:
    """Time per image of the measured (float32) model, on a few validation images."""
    log.info("Measuring latency")
    inputs, _ = next(evaluation_batches(experiment, model, prepared, prepared.part("validation").head(8)).as_numpy_iterator())
    machine = folder.read_json("environment.json")
    device = ", ".join(machine["gpus"]) or f"{machine['processor']}, {machine['cpus']} cores"
    return measure_latency(_predictor(model), inputs, seconds=seconds, device=device)


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
    inputs = evaluation_batches(experiment, model, prepared, table).unbatch().as_numpy_iterator()
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
        metadata=prepared.metadata,
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
        metadata: the fitted encoder of the clinical metadata; None if the model takes none.
    """

    folder: Path
    experiment: Experiment
    classes: tuple[str, ...]
    model: keras.Model
    metrics: dict[str, Any]
    metadata: MetadataEncoder | None = None


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
    metadata = None
    if (opened / METADATA).is_file():
        metadata = MetadataEncoder.from_json((opened / METADATA).read_text(encoding="utf-8"))
    model = build_model(experiment, len(classes), opened.read_json("run.json")["model_arguments"])
    model.load_weights(weights)
    return Run(opened.path, experiment, classes, model, opened.read_json("metrics.json"), metadata)
