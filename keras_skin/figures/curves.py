"""The figure of ROC and precision-recall curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from keras_skin.figures.style import CYCLE, GREY, LINE_STYLES, new_figure


def roc_and_precision_recall(
    predictions: pd.DataFrame, classes: Sequence[str], path: Path, title: str = "", synthetic: bool = False
) -> Path | None:
    """Draws ROC and precision-recall curves: of the second class where there are two, else of each class against the rest.

    Args:
        predictions: columns `label` and `probability_<class>`; rows without a label are left out.
        classes: K names.
        path: file to write.
        title: heading.
        synthetic: mark the figure.

    Returns:
        `path`, or None (and no file) where all images are of one class.
    """
    known = predictions[predictions["label"].isin(classes)]
    shown = [classes[1]] if len(classes) == 2 else list(classes)
    shown = [name for name in shown if 0 < (known["label"] == name).sum() < len(known)]
    if not shown:
        return None
    many = len(shown) > 3  # a legend of many lines would lie on the curves: it goes below them
    with new_figure(path, (10.4, 5.5 + (0.25 * (len(shown) + 1) if many else 0)), synthetic) as figure:
        roc, recall = figure.subplots(1, 2)
        for index, name in enumerate(shown):
            truth, score = known["label"] == name, known[f"probability_{name}"]
            line = {"color": CYCLE[index % len(CYCLE)], "linestyle": LINE_STYLES[index // 2 % len(LINE_STYLES)], "linewidth": 2}
            false_positives, true_positives, _ = roc_curve(truth, score)
            roc.plot(false_positives, true_positives, label=f"{name}, AUC {roc_auc_score(truth, score):.3f}", **line)
            precision, sensitivity, _ = precision_recall_curve(truth, score)
            area = average_precision_score(truth, score)
            label = f"{name}, AP {area:.3f} (n = {truth.sum():,})"
            recall.plot(sensitivity, precision, drawstyle="steps-post", label=label, **line)
        roc.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":", label="chance")
        if len(shown) == 1:
            share = (known["label"] == shown[0]).mean()
            recall.axhline(share, color=GREY, linewidth=1, linestyle=":", label=f"chance ({share:.2f})")
        roc.set(xlabel="false positive rate (1 - specificity)", ylabel="true positive rate (sensitivity)")
        recall.set(xlabel="recall (sensitivity)", ylabel="precision")
        for axes, name, corner in ((roc, "ROC", "lower right"), (recall, "Precision and recall", "lower left")):
            axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.03))
            axes.set_box_aspect(1)  # the layout takes it into account, as it does not an equal aspect
            axes.set_anchor("N")
            axes.set_title(name, loc="left", weight="bold")
            axes.legend(**({"loc": "upper left", "bbox_to_anchor": (0.0, -0.13)} if many else {"loc": corner}))
        figure.suptitle(f"{title} (n = {len(known):,})" if title else f"n = {len(known):,}", x=0.01, ha="left")
    return path
