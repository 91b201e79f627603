"""How well the class is told without looking at the lesion: from the metadata alone, or from properties of the file alone.

A number well above chance means that a classifier of the images can be right for a wrong reason (black corners and image sizes
tell the clinic, and the clinic tells the class), and that part of a score that a model reaches needs no lesion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

FOLDS = 5
MIN_GROUPS = 10
"""Classes with fewer groups (patients, lesions, images) are left out: two in each fold."""

MARGIN = 0.1
"""A lower bound this much above chance (AUC 0.5, balanced accuracy 1/K) is called well above it."""

RESAMPLES = 300
_LEAST_DROP = 0.005


@dataclass(frozen=True)
class Shortcut:
    """How well one set of columns tells the class.

    Attributes:
        what: name of the set of columns.
        not_measured: why there are no numbers; "" where there are.
        images, classes: what was measured on; classes with too few groups are left out.
        auc, auc_interval: area under the ROC curve, with more than two classes the mean of one against the rest; chance is 0.5.
        accuracy, accuracy_interval: balanced accuracy; chance is 1/K.
        strongest: columns without which the AUC falls most, and by how much.
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
        """Balanced accuracy of one who guesses."""
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
    seed: int = 0,
) -> Shortcut:
    """Measures how well some columns tell the class, cross-validated so that no group is on both sides.

    A random forest is fitted on each training part, the encoding of the columns with it; all numbers come from images that it
    was not fitted on. Intervals are 95 % bootstraps over groups.

    Args:
        what: name of the set of columns.
        features: (N, F) texts or numbers; "", `UNK` and `unknown` are not known.
        kinds: column -> `"numeric"` or `"categorical"`.
        labels: (N,) labels, "" where there is none.
        classes: all classes.
        groups: (N,) group of each image.
        seed: of folds, forests and resamples.
    """
    told = np.asarray(labels, dtype=object)
    sizes = {name: len(np.unique(groups[told == name])) for name in classes}
    kept = tuple(name for name, size in sizes.items() if size >= MIN_GROUPS)
    if not len(features.columns):
        return Shortcut(what, "the data set has no such columns")
    if len(kept) < 2:
        here = ", ".join(f"{name} {size}" for name, size in sizes.items()) or "there are no labels"
        return Shortcut(what, f"fewer than two classes with {MIN_GROUPS} lesions or patients ({here})")
    usable = np.isin(told, kept)
    columns = _columns(features[usable].reset_index(drop=True), kinds)
    varying = [name for name in columns if len(columns[name].unique()) > 1]
    if not varying:
        return Shortcut(what, "no column varies")
    truth = pd.Categorical(told[usable], categories=list(kept)).codes.astype(np.int64)
    folds = _folds(truth, groups[usable], seed)
    if folds is None:
        return Shortcut(what, "the groups are too few or too large to be parted into folds that have all classes")
    probabilities, permuted = _out_of_fold(columns[varying], kinds, truth, len(kept), folds, seed)
    return _measured(what, truth, probabilities, permuted, kept, groups[usable], seed)


def _columns(features: pd.DataFrame, kinds: Mapping[str, str]) -> pd.DataFrame:
    """Numbers, NaN where not known; categories as texts, "" where blank (to be blank may tell, too)."""
    columns: dict[Any, pd.Series] = {}
    for name in features:
        if kinds[str(name)] == "numeric":
            columns[name] = pd.to_numeric(features[name], errors="coerce").astype(float)
        else:
            columns[name] = features[name].astype(str).str.strip()
    return pd.DataFrame(columns)


def _folds(truth: np.ndarray, groups: np.ndarray, seed: int) -> list[tuple[np.ndarray, np.ndarray]] | None:
    from sklearn.model_selection import StratifiedGroupKFold

    parts = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed).split(truth, truth, groups)
    folds = list(parts)
    whole = set(truth.tolist())
    return folds if all(set(truth[train].tolist()) == whole and len(test) for train, test in folds) else None


def _forest(kinds: Mapping[str, str], columns: Sequence[str], seed: int) -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    categorical = [name for name in columns if kinds[name] != "numeric"]
    encode = ColumnTransformer(
        [("categories", OneHotEncoder(handle_unknown="ignore", sparse_output=False), categorical)], remainder="passthrough"
    )
    forest = RandomForestClassifier(100, min_samples_leaf=5, class_weight="balanced_subsample", n_jobs=-1, random_state=seed)
    return make_pipeline(encode, forest)


def _out_of_fold(
    columns: pd.DataFrame, kinds: Mapping[str, str], truth: np.ndarray, count: int, folds: list, seed: int
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Probabilities (N, K) of each image by the forest that was not fitted on it, and the same with one column shuffled."""
    random = np.random.default_rng(seed)
    names = [str(name) for name in columns]
    whole = np.zeros((len(truth), count))
    permuted = {name: np.zeros((len(truth), count)) for name in names}
    for train, test in folds:
        model = _forest(kinds, names, seed).fit(columns.iloc[train], truth[train])
        whole[test] = model.predict_proba(columns.iloc[test])
        for name in names:
            shuffled = columns.iloc[test].copy()
            shuffled[name] = random.permutation(shuffled[name].to_numpy())
            permuted[name][test] = model.predict_proba(shuffled)
    return whole, permuted


def _measured(
    what: str,
    truth: np.ndarray,
    probabilities: np.ndarray,
    permuted: Mapping[str, np.ndarray],
    classes: tuple[str, ...],
    groups: np.ndarray,
    seed: int,
) -> Shortcut:
    from keras_skin.evaluation.bootstrap import bootstrap
    from keras_skin.evaluation.classification import classification_scores, resampled_scores

    wanted = ("auc", "balanced_accuracy")
    scores = classification_scores(truth, probabilities, classes)
    statistics = resampled_scores(truth, probabilities, classes)
    values = bootstrap(
        statistics, {name: scores[name] for name in wanted}, dict.fromkeys(wanted, len(truth)), groups, RESAMPLES, seed
    )
    drops = {name: scores["auc"] - classification_scores(truth, other, classes)["auc"] for name, other in permuted.items()}
    strongest = sorted(((name, drop) for name, drop in drops.items() if drop >= _LEAST_DROP), key=lambda pair: -pair[1])[:4]
    intervals = {name: tuple(values[name]["ci95"] or (np.nan, np.nan)) for name in wanted}
    return Shortcut(
        what,
        "",
        len(truth),
        classes,
        scores["auc"],
        intervals["auc"],
        scores["balanced_accuracy"],
        intervals["balanced_accuracy"],
        tuple((name, float(drop)) for name, drop in strongest),
    )
