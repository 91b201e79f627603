"""The figure of ROC and precision-recall curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from keras_skin.figures.style import CYCLE, GREY, LINE_STYLES, new_figure


def roc_and_precision_recall(
    predictions: pd.DataFrame, classes: Sequence[str], path: Path, title: str = "", synthetic: bool = False
) -> Path | None:
    """Draws ROC and precision-recall curves: of the second of two classes, else of each class against the rest.

    Args:
        predictions: columns `label` and `probability_<class>`; rows without a label are ignored.
        classes: K names.

    Returns None where all images are of one class.
    """
    labelled = predictions[predictions["label"].isin(classes)]
    names = classes_with_curves(labelled, classes)
    if not names:
        return None
    many = len(names) > 3  # a legend of many lines would cover the curves: it goes below them
    with new_figure(path, (10.4, 5.5 + (0.25 * (len(names) + 1) if many else 0)), synthetic) as figure:
        roc, recall = figure.subplots(1, 2)
        for index, name in enumerate(names):
            line = {"color": CYCLE[index % len(CYCLE)], "linestyle": LINE_STYLES[index // 2 % len(LINE_STYLES)], "linewidth": 2}
            x, y, area = curve(labelled, name, "ROC")
            roc.plot(x, y, label=f"{name}, AUC {area:.3f}", **line)
            x, y, area = curve(labelled, name, "PR")
            label = f"{name}, AP {area:.3f} (n = {(labelled['label'] == name).sum():,})"
            recall.plot(x, y, drawstyle="steps-post", label=label, **line)
        roc.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":", label="chance")
        if len(names) == 1:
            share = (labelled["label"] == names[0]).mean()
            recall.axhline(share, color=GREY, linewidth=1, linestyle=":", label=f"chance ({share:.2f})")
        roc.set(xlabel="false positive rate (1 - specificity)", ylabel="true positive rate (sensitivity)")
        recall.set(xlabel="recall (sensitivity)", ylabel="precision")
        for axes, name, corner in ((roc, "ROC", "lower right"), (recall, "Precision and recall", "lower left")):
            axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.03))
            axes.set_box_aspect(1)  # the layout ignores an equal aspect
            axes.set_anchor("N")
            axes.set_title(name, loc="left", weight="bold")
            axes.legend(**({"loc": "upper left", "bbox_to_anchor": (0.0, -0.13)} if many else {"loc": corner}))
        figure.suptitle(f"{title} (n = {len(labelled):,})" if title else f"n = {len(labelled):,}", x=0.01, ha="left")
    return path


def classes_with_curves(labelled: pd.DataFrame, classes: Sequence[str]) -> list[str]:
    """Returns the second of two classes, else all classes, without those that have no image or all images of `labelled`."""
    names = classes[1:] if len(classes) == 2 else classes
    return [name for name in names if 0 < (labelled["label"] == name).sum() < len(labelled)]


def curve(labelled: pd.DataFrame, name: str, kind: Literal["ROC", "PR"]) -> tuple[np.ndarray, np.ndarray, float]:
    """Returns x, y and the area of a class's ROC or precision-recall curve."""
    truth, score = labelled["label"] == name, labelled[f"probability_{name}"]
    if kind == "ROC":
        false_positives, true_positives, _ = roc_curve(truth, score)
        return false_positives, true_positives, roc_auc_score(truth, score)
    precision, recall, _ = precision_recall_curve(truth, score)
    return recall, precision, average_precision_score(truth, score)
