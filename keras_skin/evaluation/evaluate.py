"""Runs a model over the images of one split: numbers with intervals, a table with a row per image, and mask files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from keras_skin.evaluation import classification, segmentation
from keras_skin.evaluation.bootstrap import bootstrap
from keras_skin.evaluation.measures import class_indices, class_probabilities, task_measures
from keras_skin.registry import atomic_path

Predict = Callable[[Mapping[str, Any]], Mapping[str, np.ndarray]]
LoadMask = Callable[[str], np.ndarray]


@dataclass(frozen=True)
class Evaluation:
    """Results of one split.

    Attributes:
        metrics: `{task: {metric: {"value", "ci95", "n"}}}` (with `stamp`, see `stamped`), tasks `segmentation` and
            `classification`, `<metric>/<class>` for one class (masks: the images truly of it); a task without a truth or a model
            output is absent, and so is a metric that the images do not define (see `notes`).
        predictions: one row per image, in the order of the table.
        classes: class names, in the order of the probabilities and of `confusion`.
        confusion: (K, K) counts, true class by row; None without classification.
        notes: sentences for the log and the report.
    """

    metrics: dict[str, dict[str, dict[str, Any]]]
    predictions: pd.DataFrame
    classes: tuple[str, ...]
    confusion: np.ndarray | None
    notes: tuple[str, ...]


def tested_splits(table: pd.DataFrame) -> list[str]:
    """Splits of a table that are scored: validation, test, then external data sets."""
    names = list(dict.fromkeys(table["split"]))
    external = [name for name in names if name.startswith("external/")]
    return [name for name in ("validation", "test") if name in names] + external


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Logistic function in float64, without overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * np.asarray(logits, np.float64)))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Softmax over the last axis in float64, without overflow."""
    logits = np.asarray(logits, np.float64)
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def evaluate(
    model_predict: Predict,
    batches: Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]],
    table: pd.DataFrame,
    classes: Sequence[str],
    load_mask: LoadMask,
    mask_folder: Path | None,
    groups: Sequence[Any] | None = None,
    threshold: float = 0.5,
    resamples: int = 1000,
    seed: int = 0,
) -> Evaluation:
    """Evaluates a model on one split.

    Masks are scored and written batch by batch, so memory does not grow with the split. The predicted probability map is resized
    to the size of the original mask and cut at `threshold` there (headline metrics), and cut at the model's size against the mask
    that the pipeline resized (metrics with the suffix `_model_size`). An image without a true mask or label is predicted and
    listed, not scored.

    Args:
        model_predict: maps a batch's inputs to the model's outputs as arrays: `mask` (B, H, W, 1) logits, `label` (B, K) logits,
            or one of the two; other keys are ignored.
        batches: yields (inputs, targets) in the order of `table`, every row once; `targets["mask"]` is (B, H, W, 1).
        table: columns `image_id`, `mask` (path or ""), `label` (class name or ""); `dataset` and `split` are carried along.
        classes: K class names in the order of the logits.
        load_mask: reads a mask file as an (H, W) bool array at its own size.
        mask_folder: predicted masks are written there as `<image_id>.png`, one bit per pixel, at the original mask's size (the
            model's where there is no true mask); None writes none.
        groups: a value per row; intervals resample groups. None: images.
        threshold: of the mask's probability; a pixel belongs to the lesion above it.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        ValueError: if batches and table disagree in number, a label is not a class, or an output is not finite.
    """
    classes = tuple(classes)
    table = table.reset_index(drop=True)
    class_indices(table, classes)  # reports an unknown label before the work
    rows: list[dict[str, Any]] = []
    _group_codes(table, groups)
    scorer = _MaskScorer(load_mask, mask_folder, threshold)
    with ThreadPoolExecutor(max_workers=4) as pool:
        for inputs, targets in batches:
            outputs = model_predict(inputs)
            count = len(next(iter(outputs.values())))
            batch_rows = table.iloc[len(rows) : len(rows) + count]
            if len(batch_rows) < count:
                raise ValueError(f"The batches hold more images than the table's {len(table)} rows.")
            rows += _predict_rows(outputs, targets, batch_rows, classes, scorer, pool)
    if len(rows) < len(table):
        raise ValueError(f"The batches hold {len(rows)} images, the table has {len(table)} rows.")
    return summarise(pd.DataFrame(rows, index=table.index), classes, groups, resamples, seed)


def _group_codes(table: pd.DataFrame, groups: Sequence[Any] | None) -> np.ndarray:
    if groups is None:
        return np.arange(len(table))
    if len(groups) != len(table):
        raise ValueError(f"There are {len(groups)} groups for {len(table)} images.")
    return pd.factorize(np.asarray(groups, dtype=object))[0]


def _predict_rows(
    outputs: Mapping[str, np.ndarray],
    targets: Mapping[str, Any],
    table: pd.DataFrame,
    classes: tuple[str, ...],
    scorer: _MaskScorer,
    pool: ThreadPoolExecutor,
) -> list[dict[str, Any]]:
    """The rows of `predictions` for one batch; its masks are written on the way."""
    rows: list[dict[str, Any]] = [
        {name: str(getattr(record, name, "")) for name in ("image_id", "dataset", "split", "label")}
        for record in table.itertuples()
    ]
    for key in ("mask", "label"):
        if key in outputs:
            _check_finite(key, outputs[key], table)
    if "label" in outputs:
        for row, probability in zip(rows, softmax(outputs["label"]), strict=True):
            row["predicted"] = classes[int(probability.argmax())]
            row |= {f"probability_{name}": float(value) for name, value in zip(classes, probability, strict=True)}
    if "mask" in outputs:
        probabilities = sigmoid(outputs["mask"])[..., 0]
        small = np.asarray(targets["mask"])[..., 0] > 0.5 if "mask" in targets else [None] * len(rows)
        paths = table["mask"].fillna("").astype(str) if "mask" in table else [""] * len(rows)
        for row, scores in zip(rows, pool.map(scorer.score, table["image_id"], paths, probabilities, small), strict=True):
            row |= scores
    return rows


def _check_finite(key: str, output: np.ndarray, table: pd.DataFrame) -> None:
    bad = [str(image_id) for image_id, value in zip(table["image_id"], output, strict=True) if not np.isfinite(value).all()]
    if bad:
        raise ValueError(
            f"The model's output '{key}' is not finite for {len(bad)} images of a batch, the first is {bad[0]}: "
            "its training has diverged, or its weights are damaged."
        )


@dataclass(frozen=True)
class _MaskScorer:
    """Scores the predicted masks of one split and writes them."""

    load_mask: LoadMask
    folder: Path | None
    threshold: float

    def score(self, image_id: str, path: str, probability: np.ndarray, small_truth: np.ndarray | None) -> dict[str, float]:
        """Scores at both sizes (NaN without a true mask) and pixel counts at the original size."""
        small = probability > self.threshold
        truth = self.load_mask(path) if path else None
        predicted = small if truth is None else segmentation.resize_probability(probability, truth.shape) > self.threshold
        self._write(image_id, predicted)
        scores = dict.fromkeys((*segmentation.metric_names(), *segmentation.COUNTS), np.nan)
        if truth is None:
            return scores
        scores |= segmentation.score_mask(truth, predicted)
        if small_truth is not None:
            at_model_size = segmentation.score_mask(small_truth, small)
            scores |= {name + segmentation.MODEL_SIZE: at_model_size[name] for name in segmentation.METRICS}
        return scores

    def _write(self, image_id: str, mask: np.ndarray) -> None:
        if self.folder is None:
            return
        if image_id != Path(image_id).name or image_id in ("", ".", ".."):
            raise ValueError(f"Image id '{image_id}' cannot name a file.")
        with atomic_path(self.folder / f"{image_id}.png") as path:
            Image.fromarray(mask).save(path)


def summarise(
    predictions: pd.DataFrame, classes: Sequence[str], groups: Sequence[Any] | None = None, resamples: int = 1000, seed: int = 0
) -> Evaluation:
    """Metrics, intervals and notes from the rows of all images: what `evaluate` ends with, also for pooled predictions.

    Args:
        predictions: rows as in `Evaluation.predictions`; `label` is "" or NaN where there is none.
        classes: K class names.
        groups: a value per row; intervals resample groups. None: images.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        The evaluation, with unchanged `predictions`.

    Raises:
        ValueError: if a label is not a class, or the number of groups is not that of the rows.
    """
    classes, truth, codes = tuple(classes), class_indices(predictions, tuple(classes)), _group_codes(predictions, groups)
    measures = task_measures(predictions, classes)
    metrics = {
        task: bootstrap(item.statistics, item.values, item.counts, codes[item.rows], resamples, seed)
        for task, item in measures.items()
    }
    confusion, notes = None, []
    if "dsc" in predictions:
        notes += _mask_notes(predictions[predictions["tp"].notna()], len(predictions))
    if "predicted" in predictions:
        if "classification" in measures:
            probabilities = class_probabilities(predictions, classes)[truth >= 0]
            confusion = classification.confusion_counts(truth[truth >= 0], probabilities.argmax(axis=1), classes)
        notes += _label_notes(truth, classes, metrics.get("classification", {}))
    return Evaluation(metrics, predictions, classes, confusion, tuple(notes))


def stamped(evaluation: Evaluation, stamp: str, why: str) -> Evaluation:
    """The evaluation with a few words of warning on every one of its metrics (key `stamp`), and the sentence behind them."""
    metrics = {
        task: {name: {**value, "stamp": stamp} for name, value in values.items()} for task, values in evaluation.metrics.items()
    }
    return replace(evaluation, metrics=metrics, notes=(why, *evaluation.notes))


def _mask_notes(scored: pd.DataFrame, total: int) -> list[str]:
    notes = []
    if len(scored) < total:
        notes.append(f"Images without a true mask: {total - len(scored)} of {total}; predicted, not scored.")
    both = int(scored["dsc"].isna().sum())
    if both:
        notes.append(f"Empty true and empty predicted mask: {both}; not in the mean DSC, IoU and MCC.")
    missed = int(((scored["tp"] + scored["fn"] > 0) & (scored["tp"] + scored["fp"] == 0)).sum())
    if missed:
        notes.append(f"Lesions missed altogether (empty predicted mask): {missed}; each counts as DSC 0.")
    return notes


def _label_notes(truth: np.ndarray, classes: tuple[str, ...], metrics: Mapping[str, Any]) -> list[str]:
    notes, unlabelled = [], int(np.count_nonzero(truth < 0))
    if unlabelled:
        notes.append(f"Images without a label: {unlabelled} of {len(truth)}; predicted, not scored.")
    absent = [name for index, name in enumerate(classes) if not np.count_nonzero(truth == index)]
    if absent and unlabelled < len(truth):
        expected = [name for name in classification.METRICS if name != "top2_accuracy" or len(classes) > 2]
        undefined = ", ".join(name for name in expected if name not in metrics)
        consequence = f"{undefined} cannot be computed" if undefined else "means over classes leave it out"
        notes.append(f"No image of class {', '.join(absent)}: {consequence}.")
    return notes
