"""The metrics of a table of predictions, per task, and a function that computes them on resamples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from keras_skin.evaluation import classification, segmentation
from keras_skin.evaluation.bootstrap import Statistics, weighted_means


class TaskMeasure(NamedTuple):
    """One task's metrics of one table of predictions.

    Attributes:
        statistics: (R, M) weights -> metrics of each resample, M the number of images used.
        values: the metrics themselves, NaN where undefined.
        counts: images behind each.
        rows: (N,) bool, the M images used.
    """

    statistics: Statistics
    values: Mapping[str, float]
    counts: Mapping[str, int]
    rows: np.ndarray


def task_measures(predictions: pd.DataFrame, classes: Sequence[str]) -> dict[str, TaskMeasure]:
    """The metrics of a table of predictions: `segmentation` of scored masks, `classification` of labelled images.

    Args:
        predictions: rows as in `Evaluation.predictions`.
        classes: K class names.

    Raises:
        ValueError: if a label is not a class.
    """
    classes, truth = tuple(classes), class_indices(predictions, tuple(classes))
    measures = {}
    if "dsc" in predictions and predictions["tp"].notna().any():
        columns = {name: predictions[name].to_numpy(np.float64) for name in segmentation.metric_names()}
        columns |= _by_true_class(columns, truth, classes)
        counts = {name: int(np.count_nonzero(~np.isnan(column))) for name, column in columns.items()}
        values = {name: float(np.nanmean(column)) if counts[name] else np.nan for name, column in columns.items()}
        measures["segmentation"] = TaskMeasure(weighted_means(columns), values, counts, np.ones(len(predictions), bool))
    if "predicted" in predictions and (truth >= 0).any():
        known, probabilities = truth[truth >= 0], class_probabilities(predictions, classes)[truth >= 0]
        measures["classification"] = TaskMeasure(
            classification.resampled_scores(known, probabilities, classes),
            classification.classification_scores(known, probabilities, classes),
            classification.image_counts(known, classes),
            truth >= 0,
        )
    return measures


def class_probabilities(predictions: pd.DataFrame, classes: tuple[str, ...]) -> np.ndarray:
    """(N, K) probabilities, classes in the given order."""
    return predictions[[f"probability_{name}" for name in classes]].to_numpy(np.float64)


def _by_true_class(columns: Mapping[str, np.ndarray], truth: np.ndarray, classes: tuple[str, ...]) -> dict[str, np.ndarray]:
    """`<metric>/<class>` -> the metric where the image is truly of that class, NaN elsewhere; nothing if there is but one."""
    present = [index for index in range(len(classes)) if (truth == index).any()]
    if len(present) < 2:
        return {}
    return {
        f"{name}/{classes[index]}": np.where(truth == index, columns[name], np.nan)
        for name in segmentation.PER_CLASS
        for index in present
    }


def class_indices(table: pd.DataFrame, classes: tuple[str, ...]) -> np.ndarray:
    """(N,) class of each row, -1 where it has none.

    Raises:
        ValueError: if a label is not a class.
    """
    labels = table["label"].fillna("").astype(str) if "label" in table else pd.Series("", index=table.index)
    strange = sorted(set(labels) - {"", *classes})
    if strange:
        raise ValueError(f"Labels {strange} are not among the model's classes {list(classes)}.")
    return np.array([classes.index(label) if label else -1 for label in labels], dtype=int)
