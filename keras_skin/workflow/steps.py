"""One run from data to report, in seven steps: prepare, train, measure, explain, export, draw, report."""

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
from keras_skin.data.pipeline.samples import mask_column
from keras_skin.data.splits import splits
from keras_skin.evaluation.evaluate import Evaluation, evaluate, stamped
from keras_skin.evaluation.latency import measure_latency
from keras_skin.evaluation.run_report import write_run_report
from keras_skin.evaluation.shares import share_warning
from keras_skin.experiment import Experiment
from keras_skin.explain.callback import ExplainCallback, Explanations
from keras_skin.export.endpoints import SERVED
from keras_skin.models.footprint import footprint
from keras_skin.registry import UserError
from keras_skin.run_folder import EXPORTS, LATENCY, METADATA, RunFolder
from keras_skin.training.precision import choose_precision, set_determinism
from keras_skin.workflow.changed_files import unchanged_files
from keras_skin.workflow.drawing import draw
from keras_skin.workflow.environment import environment
from keras_skin.workflow.explaining import make_explainer
from keras_skin.workflow.exporting import add_agreement, export_run
from keras_skin.workflow.initial import initial_run, start_from
from keras_skin.workflow.lesions import lesion_masks, lesion_sheets, with_lesions
from keras_skin.workflow.opened_run import ActiveRun, Run, build_model, preprocessing, read_metadata
from keras_skin.workflow.predictor import shift_logits
from keras_skin.workflow.prepare import PreparedData, describe, prepare_data, shorten
from keras_skin.workflow.segmenter import adopt_segmenter, fitted_images, open_segmenter
from keras_skin.workflow.training import Trained, train

log = logging.getLogger("keras_skin")

DRY_RUN_BATCHES = 2
STAMP = "groups may straddle"


def execute(folder: RunFolder, data_dir: Path | None, fold: int = 0, resume: bool = False) -> dict[str, Any]:
    """Runs the experiment in the folder, or one fold of it.

    Args:
        folder: holds experiment.json and run.json.
        data_dir: the folder of the data sets.
        fold: of a cross-validation, from 0.
        resume: whether the run was started before.

    Returns:
        The metrics, as written to metrics.json.

    Raises:
        FilesChanged: if image files vanished or changed meanwhile.
    """
    run = prepare(folder, data_dir, fold, resume)
    explainer = make_explainer(run)
    with unchanged_files(run.data.table):
        training = train(run, resume, explainer)
    run = trained_run(run)
    with unchanged_files(run.data.table):
        evaluations = measure(run)
        warnings = check_shares(run, training, evaluations)
        explanations = explain(run, explainer)
        export(run)
        draw(run, training, evaluations, explanations, warnings)
    write_run_report(run)
    return run.metrics


def prepare(folder: RunFolder, data_dir: Path | None, fold: int, resume: bool) -> ActiveRun:
    """Reads and splits the data, builds the model, opens the image store, and records all of it in the folder.

    Raises:
        UserError: if the data, the segmenter or the model cannot be used, or are not those that the run started with.
    """
    experiment = folder.experiment
    settings = experiment.train
    if experiment.export.enabled:
        refuse_export(preprocessing(experiment))
    if experiment.model.init:
        initial_run(experiment.model.init)  # a mistyped name fails before the data are read
    set_determinism(settings.seed, settings.deterministic)
    folder.write_json("environment.json", environment())
    adopted = _adopt_segmenter(folder)
    segmenter = _open_segmenter(adopted, experiment) if adopted is not None and experiment.cuts_lesions else None
    data = _prepare_data(folder, data_dir, fold, resume, adopted)

    build = functools.partial(build_model, experiment, len(data.classes), data.model_arguments)
    policy = _precision(folder, build)
    started = resume and folder.state.is_file()
    initial = experiment.model.init
    model = build(policy, pretrained=not (started or initial))
    if initial and not started:
        folder.update_record(init=start_from(model, initial))
    if segmenter is not None:
        data = with_lesions(folder, data, segmenter)
    masks = mask_column(list(model.input), list(model.output))
    store = open_store(data.table, experiment.image_size, preprocessing(experiment), masks)
    return ActiveRun(folder.path, model, data.metadata, segmenter, data=replace(data, store=store), precision=policy)


def trained_run(run: ActiveRun) -> ActiveRun:
    """The run with its weights in a float32 model, with the shift of `predict.prior`: what is measured, explained and exported is
    the same function."""
    model = run.model
    if run.precision != "float32":
        model = build_model(run.experiment, len(run.data.classes), run.data.model_arguments)
        model.set_weights(run.model.get_weights())
    return replace(run, model=shift_logits(model, run.label_shift, run.experiment.predict.mask_threshold))


def measure(run: ActiveRun) -> dict[str, Evaluation]:
    """Scores every split but the training split; writes metrics.json, predictions.csv, confusion_*.csv and latency.json."""
    evaluations = {split: _evaluate(run, split) for split in run.data.tested}
    run.write_json("metrics.json", {split: evaluation.metrics for split, evaluation in evaluations.items()})
    predictions = pd.concat([evaluation.predictions for evaluation in evaluations.values()], ignore_index=True)
    run.write_table("predictions.csv", predictions)
    classes = list(run.data.classes)
    for split, evaluation in evaluations.items():
        if evaluation.confusion is not None:
            counts = pd.DataFrame(evaluation.confusion, index=classes, columns=classes)
            run.write_table(f"confusion_{split.replace('/', '_')}.csv", counts.rename_axis("true class").reset_index())
    run.write_json(LATENCY, _latency(run))
    served = keras.Model(run.model.input, _served(run.model))
    footprint_mb = footprint(served)["weights + outputs of layers with weights"]
    run.update_record(parameters=run.model.count_params(), footprint_mb=footprint_mb)
    return evaluations


def check_shares(run: ActiveRun, training: Trained, evaluations: Mapping[str, Evaluation]) -> list[str]:
    """Logs and returns a warning where the classes predicted on the validation split are far from those of the training split."""
    prior, validation = run.experiment.predict.prior, evaluations.get("validation")
    if prior not in (None, "training") or validation is None or "predicted" not in validation.predictions:
        return []
    counts = run.data.rows("train")["label"].value_counts()
    shares = {name: int(counts.get(name, 0)) for name in run.data.classes}
    # The shares of a curriculum's first epoch are not those of its training.
    shown = training.shown if prior is None and training.curriculum is None else None
    warning = share_warning(validation.predictions["predicted"].tolist(), shares, shown)
    if warning:
        log.warning("%s", warning)
    return [warning] if warning else []


def explain(run: ActiveRun, explainer: ExplainCallback | None) -> Explanations:
    """Explains the best weights; measures of the explanations join metrics.json."""
    sheets = lesion_sheets(run)
    if explainer is None:
        return Explanations(sheets, {}, [])
    pictures, samples, split = len(explainer.picture_samples), len(explainer.samples), run.data.shown_split
    log.info("Explaining %d %s images, measuring the maps of %d", pictures, split, samples)
    explanations = explainer.explain(run.model)
    for warning in explanations.warnings:
        log.warning("%s", warning)
    run.write_json("metrics.json", {**run.metrics, "explanations": explanations.metrics})
    return explanations._replace(sheets=[*sheets, *explanations.sheets])


def export(run: ActiveRun) -> None:
    """Exports the editions that the experiment names and the folder does not hold yet."""
    settings = run.experiment.export
    for edition in settings.editions if settings.enabled else ():
        version, compared = run / EXPORTS[edition] / "1", None if run.options.dry_run else run.data.shown_rows
        try:
            if not version.exists():
                log.info("Exporting: %s", edition)
                export_run(run, edition, compared)
                continue
            log.info("The export in %s exists already", EXPORTS[edition])
            if compared is not None:
                add_agreement(version, edition, run, compared)
        except UserError as error:  # training and measurements deserve their report all the same
            log.warning("The edition '%s' was not exported: %s", edition, error)


def load_mask(path: str) -> np.ndarray:
    """A mask file at its own size, (H, W) bool."""
    return load.load_mask(path).numpy()[..., 0] > 0.5


def _adopt_segmenter(folder: RunFolder) -> RunFolder | None:
    """The segmenter that the experiment names a run or a preset of, in the run's folder."""
    settings = folder.experiment.segmenter
    if settings is None or settings.masks or (settings.exclude_only and folder.synthetic):
        return None
    return RunFolder(adopt_segmenter(folder, settings))


def _open_segmenter(adopted: RunFolder, experiment: Experiment) -> Run:
    segmenter = open_segmenter(adopted.path)
    if experiment.export.enabled:
        refuse_export(segmenter.preprocessing)
    return segmenter


def _prepare_data(folder: RunFolder, data_dir: Path | None, fold: int, resume: bool, segmenter: RunFolder | None) -> PreparedData:
    saved = folder / METADATA
    metadata = read_metadata(folder) if resume and saved.is_file() else None
    fitted = {"The segmenter": fitted_images(segmenter)} if segmenter else {}
    if folder.experiment.model.init and not folder.synthetic:  # drawn images have no real ones among them
        fitted["The model of model.init"] = fitted_images(initial_run(folder.experiment.model.init))
    data = prepare_data(folder.experiment, data_dir, fold, metadata, fitted)
    if folder.options.dry_run:
        data = shorten(data, DRY_RUN_BATCHES * folder.experiment.train.batch_size)
    if resume and (folder / "splits.csv").is_file():
        _require_same_splits(folder / "splits.csv", data)
    elif resume and folder.state.is_file():
        raise UserError(
            f"{folder / 'splits.csv'} is missing: it records which images this run trains on. Restore it, or start a new run."
        )
    splits.write_splits(data.table, folder / "splits.csv")
    folder.write_table("excluded.csv", data.excluded)
    if data.metadata is not None:
        folder.write_text(METADATA, data.metadata.to_json())
    if not folder.options.demo:
        folder.update_record(data_dir=None if data_dir is None else str(data_dir))
    folder.update_record(classes=list(data.classes), model_arguments=data.model_arguments, warning=data.warning)
    for note in data.notes:
        log.info("%s", note)
    log.info("Images:\n%s", describe(data))
    return data


def _require_same_splits(path: Path, data: PreparedData) -> None:
    columns = ["dataset", "image_id", "split"]
    before = set(splits.read_splits(path)[columns].itertuples(index=False, name=None))
    now = set(data.table[columns].itertuples(index=False, name=None))
    if before != now:
        examples = ", ".join(sorted(f"{item[1]} ({item[0]}, {item[2]})" for item in before ^ now)[:5])
        raise UserError(
            f"The data are not those this run started with: {len(before - now)} images are missing or moved, "
            f"{len(now - before)} are new "
            f"({examples} ...). Give the same --data, or start a new run."
        )


def _precision(folder: RunFolder, build: Callable[[str], keras.Model]) -> str:
    """The recorded precision of a run that was started before; otherwise the one that is chosen, and recorded, now."""
    recorded = folder.record.get("precision")
    if recorded:
        policy: str = recorded["policy"]
        return policy
    settings = folder.experiment.train
    choice = choose_precision(settings.precision, build, settings.batch_size, settings.deterministic)
    log.info("%s", choice.reason)
    if choice.milliseconds:  # models were built that are thrown away
        keras.backend.clear_session()
        set_determinism(settings.seed, settings.deterministic)
    folder.update_record(precision={"policy": choice.policy, "milliseconds": choice.milliseconds})
    return choice.policy


def _outputs(model: keras.Model) -> Callable[[Mapping[str, Any]], dict[str, np.ndarray]]:
    served = keras.Model(model.input, _served(model))
    call = tf.function(functools.partial(served, training=False), reduce_retracing=True)
    return lambda inputs: {key: value.numpy() for key, value in call(dict(inputs)).items()}


def _served(model: keras.Model) -> dict[str, Any]:
    return {key: model.output[key] for key in SERVED if key in model.output}


def _evaluate(run: ActiveRun, split: str) -> Evaluation:
    log.info("Measuring on %s", split)
    table = run.data.rows(split)
    evaluation = evaluate(
        _outputs(run.predictor),
        run.batches(table),
        table,
        run.data.classes,
        load_mask,
        run.masks(split),
        groups=table["group_id"].tolist(),
        seed=run.experiment.train.seed,
    )
    if run.data.warning and split in _split_together(run.experiment):
        evaluation = stamped(evaluation, STAMP, run.data.warning)
    for note in evaluation.notes:
        log.info("%s: %s", split, note)
    return evaluation


def _split_together(experiment: Experiment) -> tuple[str, ...]:
    """The measured splits that the training data set was divided into; others are separate, whatever the protocol."""
    return ("validation",) if experiment.data.test else ("validation", "test")


def _latency(run: ActiveRun) -> dict[str, Any]:
    """Time per image of the measured model, its segmenter included, on a few images."""
    log.info("Measuring latency")
    options = run.options
    seconds = 0.5 if options.dry_run or options.demo else 3.0
    inputs, _ = next(run.batches(run.data.shown_rows.head(8)).as_numpy_iterator())
    machine = run.read_json("environment.json")
    device = ", ".join(machine["gpus"]) or f"{machine['processor']}, {machine['cpus']} cores"
    predict = _outputs(run.predictor)
    if run.segmenter is None:
        return measure_latency(predict, inputs, seconds=seconds, device=device)
    masks, size = lesion_masks(run.segmenter.predictor), run.segmenter.experiment.image_size

    def chained(batch: Mapping[str, Any]) -> dict[str, np.ndarray]:
        mask = masks(load.preprocess_image(load.resize_image(batch["image"], size)))
        complete = {**batch, "segmented_image": load.segmented_image(batch["image"], mask)}
        return predict({key: complete[key] for key in inputs})

    sent = {key: value for key, value in inputs.items() if key != "segmented_image"}
    sent["image"] = inputs.get("image", inputs["segmented_image"])
    return measure_latency(chained, sent, seconds=seconds, device=device)
