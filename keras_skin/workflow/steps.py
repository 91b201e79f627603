"""One run from data to report: prepare, build, train, measure, explain, export, report."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from keras_skin.data.images import load
from keras_skin.data.images.preprocess import refuse_export
from keras_skin.data.images.store import open_store
from keras_skin.data.metadata import MetadataEncoder
from keras_skin.data.pipeline.samples import mask_column
from keras_skin.data.splits import splits
from keras_skin.evaluation.evaluate import Evaluation, evaluate, stamped
from keras_skin.evaluation.latency import describe_latency, measure_latency
from keras_skin.experiment import Experiment
from keras_skin.explain.callback import ExplainCallback, Explanations
from keras_skin.export.endpoints import SERVED
from keras_skin.registry import UserError
from keras_skin.training.fit import RUN_STATE
from keras_skin.training.precision import choose_precision, set_determinism
from keras_skin.workflow.explaining import make_explainer
from keras_skin.workflow.exporting import FOLDERS, export_run
from keras_skin.workflow.folder import RunFolder, RunOptions, environment
from keras_skin.workflow.lesions import lesion_masks, lesions_shown, with_lesions
from keras_skin.workflow.model_figures import model_figures
from keras_skin.workflow.prepare import PreparedData, describe, prepare_data, shorten
from keras_skin.workflow.reporting import write_figures_and_report
from keras_skin.workflow.segmenter import adopt_segmenter, describe_segmenter, fitted_images, open_segmenter
from keras_skin.workflow.trained_model import METADATA, Run, build_model
from keras_skin.workflow.training import evaluation_batches, preprocessing, train

log = logging.getLogger("keras_skin")

DRY_RUN_BATCHES = 2
STAMP = "groups may straddle"


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
    segmenter = _segmenter(folder, experiment)
    prepared = _prepare(folder, experiment, options, fold, resume, segmenter)
    classes = prepared.classes

    precision = choose_precision(experiment.train.precision)
    begun = resume and (folder / "checkpoints" / RUN_STATE).is_file()
    model = build_model(experiment, len(classes), prepared.model_arguments, precision, pretrained=not begun)
    if segmenter is not None:
        prepared = with_lesions(folder, prepared, segmenter)
    prepared = _with_store(experiment, model, prepared)
    explainer = make_explainer(folder, experiment, model, prepared, options.demo)
    trained = train(folder, experiment, model, prepared, resume, explainer)
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
    seconds = 0.5 if options.dry_run or options.demo else 3.0
    latency = _latency(folder, experiment, model, prepared, segmenter, seconds)
    folder.write_json("latency.json", latency)
    sheets = lesions_shown(folder, experiment, model, prepared, options.demo)
    explained = _explain(folder, explainer, model, metrics)
    if experiment.export.enabled:
        _export(folder, experiment, model, prepared, segmenter, options.dry_run)
    write_figures_and_report(
        folder,
        experiment,
        options,
        prepared,
        trained,
        evaluations,
        explained._replace(sheets=[*sheets, *explained.sheets]),
        model_figures(folder, experiment, model, prepared, evaluations, options.demo),
        {
            "Parameters": f"{model.count_params():,}",
            "Training precision": precision,
            "Training images seen": trained.seen,
            **describe_segmenter(folder, experiment),
            **describe_latency(latency),
        },
    )
    return metrics


def load_mask(path: str) -> np.ndarray:
    """A mask file at its own size, (H, W) bool."""
    return load.load_mask(path).numpy()[..., 0] > 0.5


def _segmenter(folder: RunFolder, experiment: Experiment) -> Run | None:
    """The segmenter that the experiment names a run of."""
    if experiment.segmenter is None or experiment.segmenter.run is None:
        return None
    segmenter = open_segmenter(adopt_segmenter(folder, experiment.segmenter.run))
    if experiment.export.enabled:
        refuse_export(preprocessing(segmenter.experiment))
    return segmenter


def _prepare(
    folder: RunFolder, experiment: Experiment, options: RunOptions, fold: int, resume: bool, segmenter: Run | None
) -> PreparedData:
    saved = folder / METADATA
    metadata = MetadataEncoder.from_json(saved.read_text(encoding="utf-8")) if resume and saved.is_file() else None
    segmented_by = fitted_images(segmenter.folder) if segmenter else None
    prepared = prepare_data(experiment, Path(options.data_dir) if options.data_dir else None, fold, metadata, segmented_by)
    if options.dry_run:
        prepared = shorten(prepared, DRY_RUN_BATCHES * experiment.train.batch_size)
    if resume and (folder / "splits.csv").is_file():
        _same_splits(folder / "splits.csv", prepared)
    elif resume and (folder / "checkpoints" / RUN_STATE).is_file():
        raise UserError(
            f"{folder / 'splits.csv'} is missing: it records which images this run trains on. Restore it, or start a new run."
        )
    splits.write_splits(prepared.table, folder / "splits.csv")
    folder.write_table("excluded.csv", prepared.excluded)
    if prepared.metadata is not None:
        folder.write_text(METADATA, prepared.metadata.to_json())
    folder.write_json(
        "run.json",
        {
            **folder.read_json("run.json"),
            "data_dir": options.data_dir if not options.demo else folder.read_json("run.json").get("data_dir"),
            "classes": list(prepared.classes),
            "model_arguments": prepared.model_arguments,
            "warning": prepared.warning,
        },
    )
    for note in prepared.notes:
        log.info("%s", note)
    log.info("Images:\n%s", describe(prepared))
    return prepared


def _with_store(experiment: Experiment, model: keras.Model, prepared: PreparedData) -> PreparedData:
    """The data with their image store, which is written now where it does not exist."""
    masks = mask_column(list(model.input), list(model.output))
    return replace(prepared, store=open_store(prepared.table, experiment.image_size, preprocessing(experiment), masks))


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
    folder: RunFolder,
    experiment: Experiment,
    model: keras.Model,
    prepared: PreparedData,
    segmenter: Run | None,
    seconds: float,
) -> dict[str, Any]:
    """Time per image of the measured (float32) model, its segmenter included, on a few validation images."""
    log.info("Measuring latency")
    inputs, _ = next(evaluation_batches(experiment, model, prepared, prepared.part("validation").head(8)).as_numpy_iterator())
    machine = folder.read_json("environment.json")
    device = ", ".join(machine["gpus"]) or f"{machine['processor']}, {machine['cpus']} cores"
    predict = _predictor(model)
    if segmenter is None:
        return measure_latency(predict, inputs, seconds=seconds, device=device)
    masks = lesion_masks(segmenter.model)

    def chained(given: Mapping[str, Any]) -> dict[str, np.ndarray]:
        mask = masks(load.preprocess_image(load.resize_image(given["image"], segmenter.experiment.image_size)))
        made = {**given, "segmented_image": load.segmented_image(given["image"], mask)}
        return predict({key: made[key] for key in inputs})

    given = {key: value for key, value in inputs.items() if key != "segmented_image"}
    given["image"] = inputs.get("image", inputs["segmented_image"])
    return measure_latency(chained, given, seconds=seconds, device=device)


def _parted_together(experiment: Experiment) -> tuple[str, ...]:
    """The parts that the training images' own data set was parted into; others are apart, whatever the protocol."""
    return ("validation",) if experiment.data.test else ("validation", "test")


def _explain(folder: RunFolder, explainer: ExplainCallback | None, model: keras.Model, metrics: dict[str, Any]) -> Explanations:
    """Explains the best weights; what was measured of the explanations joins metrics.json."""
    if explainer is None:
        return Explanations([], {}, [])
    log.info("Explaining %d validation images, measuring the maps of %d", len(explainer.picture_samples), len(explainer.samples))
    explained = explainer.explain(model)
    for warning in explained.warnings:
        log.warning("%s", warning)
    folder.write_json("metrics.json", {**metrics, "explanations": explained.metrics})
    return explained


def _export(
    folder: RunFolder,
    experiment: Experiment,
    model: keras.Model,
    prepared: PreparedData,
    segmenter: Run | None,
    dry_run: bool,
) -> None:
    there = {edition for edition in experiment.export.editions if (folder / FOLDERS[edition] / "1").exists()}
    for edition in there:
        log.info("The export in %s is there already", FOLDERS[edition])
    run = Run(folder.path, experiment, prepared.classes, model, folder.read_json("metrics.json"), prepared.metadata, segmenter)
    for edition in experiment.export.editions:
        if edition in there:
            continue
        log.info("Exporting: %s", edition)
        try:
            export_run(run, edition, None if dry_run else prepared.part("validation"))
        except UserError as error:  # what was trained and measured is worth its report all the same
            log.warning("There is no export '%s': %s", edition, error)
