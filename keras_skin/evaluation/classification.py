"""Classification metrics: the values through scikit-learn, their resamples as array formulas that agree with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from sklearn import metrics as sk

from keras_skin.evaluation.bootstrap import Statistics

METRICS: Mapping[str, tuple[str, str]] = {
    "tpr_weighted": ("TPR, weighted", "recall averaged over classes by their number of images; equals accuracy"),
    "tnr": ("TNR", "specificity: with two classes the recall of the first (benign), otherwise the mean over classes"),
    "f1_weighted": ("F1, weighted", "F1 averaged over classes by their number of images"),
    "tpr": ("TPR", "recall (sensitivity): with two classes that of the second (malignant), otherwise the mean over classes"),
    "f1": ("F1", "with two classes that of the second (malignant), otherwise the mean over classes"),
    "precision": ("Precision", "with two classes that of the second (malignant), otherwise the mean; 0 if never predicted"),
    "auc": ("AUC", "area under the ROC curve of the second class (malignant); with more, the mean of one against the rest"),
    "average_precision": ("Average precision", "area under the precision-recall curve, classes as for AUC"),
    "balanced_accuracy": ("Balanced accuracy", "mean of the classes' recalls"),
    "accuracy": ("Accuracy", "share of images whose most probable class is the true one"),
    "top2_accuracy": ("Top-2 accuracy", "share of images whose true class is among the two most probable"),
    "mcc": ("MCC, classes", "Matthews correlation coefficient of true and predicted classes"),
    "kappa": ("Kappa", "Cohen's kappa of true and predicted classes"),
    "precision_weighted": ("Precision, weighted", "precision averaged over classes by their number of images"),
    "tnr_weighted": ("TNR, weighted", "specificity averaged over classes by their number of images"),
    "f1_macro": ("F1, macro", "plain mean of the classes' F1, with two classes too"),
    "precision_macro": ("Precision, macro", "plain mean of the classes' precisions, with two classes too"),
    "npv": ("NPV", "negative predictive value: with two classes that of the second (malignant), otherwise the mean over classes"),
    "npv_weighted": ("NPV, weighted", "negative predictive value averaged over classes by their number of images"),
}
PER_CLASS: Mapping[str, str] = {
    "tpr": "TPR (recall)",
    "tnr": "TNR",
    "precision": "PPV (precision)",
    "npv": "NPV",
    "f1": "F1",
    "auc": "AUC",
    "average_precision": "AP",
    "accuracy": "Accuracy",
}


def classification_scores(truth: np.ndarray, probabilities: np.ndarray, classes: Sequence[str]) -> dict[str, float]:
    """All classification metrics of one sample.

    Args:
        truth: (N,) index of each image's class.
        probabilities: (N, K), rows sum to 1.
        classes: K class names; with two of them the second is the positive one.

    Returns:
        Name -> value: the names of `METRICS`, and `<metric>/<class>` for those of `PER_CLASS` (one class against the rest).
        A metric is NaN where it is undefined: recall, precision, F1 and AUC of a class without images, specificity and NPV
        of one that has them all; AUC, balanced accuracy, MCC and kappa where all images are of one class. Means run over the
        classes that have images.
    """
    labels, predicted = np.arange(len(classes)), probabilities.argmax(axis=1)
    support = np.bincount(truth, minlength=len(classes))
    table = sk.multilabel_confusion_matrix(truth, predicted, labels=labels).astype(np.float64)
    precision, recall, f1, _ = sk.precision_recall_fscore_support(truth, predicted, labels=labels, zero_division=0.0)
    tn, fp, fn, tp = table[:, 0, 0], table[:, 0, 1], table[:, 1, 0], table[:, 1, 1]
    absent = support == 0
    per_class = {
        "tpr": np.where(absent, np.nan, recall),
        "tnr": _divide(tn, tn + fp),
        "precision": np.where(absent, np.nan, precision),
        "npv": np.where(support == len(truth), np.nan, _divide(tn, tn + fn, empty=0.0)),
        "f1": np.where(absent, np.nan, f1),
        "accuracy": (tp + tn) / len(truth),
        "auc": np.full(len(classes), np.nan),
        "average_precision": np.full(len(classes), np.nan),
    }
    several = np.count_nonzero(support) > 1
    for index in labels:
        if several and support[index]:
            per_class["auc"][index] = sk.roc_auc_score(truth == index, probabilities[:, index])
            per_class["average_precision"][index] = sk.average_precision_score(truth == index, probabilities[:, index])
    overall = {
        "accuracy": sk.accuracy_score(truth, predicted),
        "mcc": sk.matthews_corrcoef(truth, predicted) if several else np.nan,
        "kappa": sk.cohen_kappa_score(truth, predicted, labels=labels) if several else np.nan,
    }
    if len(classes) > 2:
        overall["top2_accuracy"] = _in_top_two(truth, probabilities).mean()
    return {name: float(value) for name, value in _named(per_class, overall, support, support > 0, classes).items()}


def confusion_counts(truth: np.ndarray, predicted: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """(K, K) counts, true class by row and predicted class by column."""
    return sk.confusion_matrix(truth, predicted, labels=np.arange(len(classes)))


def image_counts(truth: np.ndarray, classes: Sequence[str]) -> dict[str, int]:
    """The number of images behind each metric: those of the class for a recall, those of other classes for a specificity."""
    support, total = np.bincount(truth, minlength=len(classes)), len(truth)
    counts = dict.fromkeys(METRICS, total)
    if len(classes) == 2:
        counts["tpr"], counts["tnr"] = int(support[1]), int(support[0])
    for index, name in enumerate(classes):
        counts |= {f"{metric}/{name}": total for metric in PER_CLASS}
        counts[f"tpr/{name}"], counts[f"tnr/{name}"] = int(support[index]), int(total - support[index])
    return counts


def resampled_scores(truth: np.ndarray, probabilities: np.ndarray, classes: Sequence[str]) -> Statistics:
    """`classification_scores` for many resamples at once: a function of (R, N) weights that returns (R,) values per metric.

    Args:
        truth: (N,) index of each image's class.
        probabilities: (N, K).
        classes: K class names.

    Returns:
        A function for `bootstrap`. A resample that lacks a class which the sample has gives NaN wherever that class is needed.
    """
    size, predicted = len(classes), probabilities.argmax(axis=1)
    cells = np.eye(size * size)[truth * size + predicted]
    present = np.bincount(truth, minlength=size) > 0
    top_two = _in_top_two(truth, probabilities) if size > 2 else None

    def statistics(weights: np.ndarray) -> dict[str, np.ndarray]:
        confusion = (weights @ cells).reshape(-1, size, size)
        total, support, predicted = confusion.sum((1, 2)), confusion.sum(2), confusion.sum(1)
        several = np.count_nonzero(support, axis=1) > 1
        per_class = _rates(confusion)
        per_class["auc"], per_class["average_precision"] = np.full((2, len(total), size), np.nan)
        for index in np.flatnonzero(present):
            auc, precision = _areas(weights, truth == index, probabilities[:, index])
            per_class["auc"][:, index] = auc
            per_class["average_precision"][:, index] = np.where(several, precision, np.nan)
        right, chance = np.trace(confusion, axis1=1, axis2=2), (support * predicted).sum(1)
        spread = np.sqrt((total**2 - (support**2).sum(1)) * (total**2 - (predicted**2).sum(1)))
        overall = {
            "accuracy": right / total,
            "mcc": np.where(several, _divide(right * total - chance, spread, empty=0.0), np.nan),
            "kappa": np.where(several, _divide(right * total - chance, total**2 - chance), np.nan),
        }
        if top_two is not None:
            overall["top2_accuracy"] = weights @ top_two / total
        return _named(per_class, overall, support, present, classes)

    return statistics


def _rates(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """One class against the rest, (R, K) each, from (R, K, K) confusion matrices."""
    total, support, predicted = confusion.sum((1, 2))[:, None], confusion.sum(2), confusion.sum(1)
    tp = np.diagonal(confusion, axis1=1, axis2=2)
    tn = total - support - predicted + tp
    absent = support == 0
    return {
        "tpr": _divide(tp, support),
        "tnr": _divide(tn, total - support),
        "precision": np.where(absent, np.nan, _divide(tp, predicted, empty=0.0)),
        "npv": np.where(support == total, np.nan, _divide(tn, total - predicted, empty=0.0)),
        "f1": np.where(absent, np.nan, _divide(2 * tp, support + predicted)),
        "accuracy": (tp + tn) / total,
    }


def _named(
    per_class: Mapping[str, np.ndarray],
    overall: Mapping[str, np.ndarray | float],
    support: np.ndarray,
    present: np.ndarray,
    classes: Sequence[str],
) -> dict[str, np.ndarray]:
    """Names the metrics and averages over classes; every array has the classes on its last axis."""
    share = support / support.sum(axis=-1, keepdims=True)
    named = {name: np.asarray(value) for name, value in overall.items()}
    for metric in ("tpr", "tnr", "precision", "f1", "npv"):
        named[f"{metric}_weighted"] = np.where(support > 0, share * per_class[metric], 0.0).sum(axis=-1)
    for metric in ("precision", "f1"):
        named[f"{metric}_macro"] = per_class[metric][..., present].mean(axis=-1)
    for metric in ("tpr", "tnr", "precision", "f1", "npv", "auc", "average_precision"):
        values = per_class[metric]
        # A class without images in the sample does not count. One that only the resample lacks makes the mean NaN: it is skipped.
        named[metric] = values[..., 1] if len(classes) == 2 else values[..., present].mean(axis=-1)
    recalls = per_class["tpr"][..., present].mean(axis=-1)
    named["balanced_accuracy"] = recalls if present.sum() > 1 else np.full_like(recalls, np.nan)
    # A specificity that rests on no image of any other class is undefined: tnr_weighted must not pass it off as 0.
    one_class = np.count_nonzero(support, axis=-1) < 2
    named["tnr_weighted"] = np.where(one_class, np.nan, named["tnr_weighted"])
    for metric in PER_CLASS:
        named |= {f"{metric}/{name}": per_class[metric][..., index] for index, name in enumerate(classes)}
    return named


def _areas(weights: np.ndarray, positive: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Area under the ROC curve and average precision, (R,) each; NaN without a positive (or, for ROC, a negative)."""
    order = np.argsort(-score, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)  # images of one score enter together
    hits = np.cumsum(weights[:, order] * positive[order], axis=1)[:, ends]
    alarms = np.cumsum(weights[:, order] * ~positive[order], axis=1)[:, ends]
    steps = np.diff(hits, axis=1, prepend=0.0)
    area = (np.diff(alarms, axis=1, prepend=0.0) * (hits - steps / 2)).sum(axis=1)
    precision = (steps * _divide(hits, hits + alarms, empty=0.0)).sum(axis=1)
    return _divide(area, hits[:, -1] * alarms[:, -1]), _divide(precision, hits[:, -1])


def _in_top_two(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """(N,) 1.0 where the true class is among the two most probable."""
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :2]
    return (best == truth[:, None]).any(axis=1).astype(np.float64)


def _divide(share: np.ndarray, whole: np.ndarray, empty: float = np.nan) -> np.ndarray:
    """share / whole, and `empty` where whole is 0."""
    share, whole = np.broadcast_arrays(np.asarray(share, np.float64), np.asarray(whole, np.float64))
    return np.divide(share, whole, out=np.full(share.shape, empty), where=whole != 0)
