"""Measures how well the class can be predicted without the lesion: from the metadata alone, or from file properties alone.

A score well above chance means that an image classifier can be right for the wrong reason (black corners and image sizes reveal
the clinic, and the clinic reveals the class), and that it can reach part of its score without the lesion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from keras_skin.evaluation.bootstrap import bootstrap
from keras_skin.evaluation.classification import classification_scores, resampled_scores

FOLDS = 5
MIN_GROUPS = 10
"""Classes with fewer groups (patients, lesions, images) are left out; this leaves two groups per fold."""

MARGIN = 0.1
"""A score is well above chance if its lower bound is this much above it (AUC 0.5, balanced accuracy 1/K)."""

RESAMPLES = 300
_LEAST_DROP = 0.005
_SEED = 0


@dataclass(frozen=True)
class Shortcut:
    """How well one set of columns predicts the class.

    Attributes:
        what: name of the set of columns.
        not_measured: why nothing was measured, "" if it was.
        images, classes: the images and classes used; classes with too few groups are left out.
        auc, auc_interval: area under the ROC curve (mean of one class against the rest for several classes); chance is 0.5.
        accuracy, accuracy_interval: balanced accuracy; chance is 1/K.
        strongest: the columns whose shuffling lowers the AUC most, and by how much.
    """

    what: str
    not_measured: str = ""
    images: int = 0
    classes: tuple[str, ...] = ()
    auc: float = np.nan
    auc_interval: tuple[float, float] = (np.nan, np.nan)
    accuracy: float = np.nan
    accuracy_interval: tuple[float, float] = (np.nan, np.nan)
    strongest: tuple[tuple[str, float], ...] = ()

    @property
    def chance(self) -> float:
        """Balanced accuracy of guessing."""
        return 1 / max(len(self.classes), 1)

    @property
    def above_chance(self) -> bool:
        """Whether the lower end of an interval is well above chance."""
        return self.auc_interval[0] >= 0.5 + MARGIN or self.accuracy_interval[0] >= self.chance + MARGIN


def shortcut(
    what: str,
    features: pd.DataFrame,
    kinds: Mapping[str, str],
    labels: Sequence[str],
    classes: Sequence[str],
    groups: np.ndarray,
) -> Shortcut:
    """Measures how well a set of columns predicts the class, by cross-validation with each group in one fold.

    A random forest and the encoding of the columns are fitted on the training folds; all scores come from the held-out fold.
    Intervals are 95 % bootstraps over groups.

    Args:
        what: name of the set of columns.
        features: (N, F) strings or numbers; "", `UNK` and `unknown` mean unknown.
        kinds: column -> `"numeric"` or `"categorical"`.
        labels: (N,) labels, "" for unlabelled.
        classes: all classes.
        groups: (N,) group of each image.
    """
    if not len(features.columns):
        return Shortcut(what, "the data set has no such columns")
    label_array = np.asarray(labels, dtype=object)
    sizes = {name: len(np.unique(groups[label_array == name])) for name in classes}
    large = tuple(name for name, size in sizes.items() if size >= MIN_GROUPS)
    if len(large) < 2:
        counts = ", ".join(f"{name} {size}" for name, size in sizes.items()) or "there are no labels"
        return Shortcut(what, f"fewer than two classes with {MIN_GROUPS} lesions or patients ({counts})")
    usable = np.isin(label_array, large)
    groups = groups[usable]
    columns = _columns(features[usable].reset_index(drop=True), kinds)
    columns = columns[[name for name in columns if len(columns[name].unique()) > 1]]
    if not len(columns.columns):
        return Shortcut(what, "no column varies")
    truth = pd.Categorical(label_array[usable], categories=list(large)).codes.astype(np.int64)
    folds = _folds(truth, groups)
    if folds is None:
        return Shortcut(what, "the groups are too few or too large for folds with all classes")

    probabilities, shuffled = _out_of_fold(columns, kinds, truth, len(large), folds)
    scores = classification_scores(truth, probabilities, large)
    metrics = {name: scores[name] for name in ("auc", "balanced_accuracy")}
    statistics = resampled_scores(truth, probabilities, large)
    values = bootstrap(statistics, metrics, dict.fromkeys(metrics, len(truth)), groups, RESAMPLES, _SEED)
    intervals = {name: tuple(values[name]["ci95"] or (np.nan, np.nan)) for name in metrics}
    drops = {name: scores["auc"] - classification_scores(truth, other, large)["auc"] for name, other in shuffled.items()}
    strongest = sorted(((name, float(drop)) for name, drop in drops.items() if drop >= _LEAST_DROP), key=lambda pair: -pair[1])
    return Shortcut(
        what,
        images=len(truth),
        classes=large,
        auc=scores["auc"],
        auc_interval=intervals["auc"],
        accuracy=scores["balanced_accuracy"],
        accuracy_interval=intervals["balanced_accuracy"],
        strongest=tuple(strongest[:4]),
    )


def _columns(features: pd.DataFrame, kinds: Mapping[str, str]) -> pd.DataFrame:
    """Numbers, NaN for unknown; categories as strings, "" for blank (blanks may be informative)."""
    columns: dict[Any, pd.Series] = {}
    for name in features:
        if kinds[str(name)] == "numeric":
            columns[name] = pd.to_numeric(features[name], errors="coerce").astype(float)
        else:
            columns[name] = features[name].astype(str).str.strip()
    return pd.DataFrame(columns)


def _folds(truth: np.ndarray, groups: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]] | None:
    """Folds (training rows, test rows) without shared groups; None if a training side lacks a class or a test side is empty."""
    from sklearn.model_selection import StratifiedGroupKFold

    folds = list(StratifiedGroupKFold(FOLDS, shuffle=True, random_state=_SEED).split(truth, truth, groups))
    classes = set(truth.tolist())
    return folds if all(set(truth[train].tolist()) == classes and len(test) for train, test in folds) else None


def _forest(kinds: Mapping[str, str], columns: Sequence[str]) -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    categorical = [name for name in columns if kinds[name] != "numeric"]
    encode = ColumnTransformer(
        [("categories", OneHotEncoder(handle_unknown="ignore", sparse_output=False), categorical)], remainder="passthrough"
    )
    forest = RandomForestClassifier(100, min_samples_leaf=5, class_weight="balanced_subsample", n_jobs=-1, random_state=_SEED)
    return make_pipeline(encode, forest)


def _out_of_fold(
    columns: pd.DataFrame, kinds: Mapping[str, str], truth: np.ndarray, count: int, folds: list
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Out-of-fold probabilities (N, K), and the same with each column shuffled."""
    random = np.random.default_rng(_SEED)
    names = [str(name) for name in columns]
    probabilities = np.zeros((len(truth), count))
    with_shuffled = {name: np.zeros((len(truth), count)) for name in names}
    for train, test in folds:
        model = _forest(kinds, names).fit(columns.iloc[train], truth[train])
        probabilities[test] = model.predict_proba(columns.iloc[test])
        for name in names:
            shuffled = columns.iloc[test].copy()
            shuffled[name] = random.permutation(shuffled[name].to_numpy())
            with_shuffled[name][test] = model.predict_proba(shuffled)
    return probabilities, with_shuffled
