"""The figure of learning curves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from keras_skin.figures.style import BLUE, RED, grid_shape, new_figure

QUANTITIES = {
    "loss": "Loss",
    "mask_loss": "Loss, mask",
    "label_loss": "Loss, class",
    "mask_dsc": "DSC",
    "mask_iou": "IoU",
    "label_accuracy": "Accuracy",
    "label_balanced_accuracy": "Balanced accuracy",
    "label_f1_weighted": "F1, weighted",
    "label_auc": "AUC",
    "learning_rate": "Learning rate",
}
LAST = "learning_rate"
# Columns of history.csv that are no learning curves.
IGNORED = ("epoch", "step", "seconds", "time_left")


def learning_curves(history: pd.DataFrame, path: Path, best_epoch: int | None = None, synthetic: bool = False) -> Path:
    """Draws one panel per quantity, training and validation together.

    Args:
        history: one row per epoch; a column `x` is a training quantity, `val_x` the same in validation. `epoch` numbers the
            axis (1, 2, ... without it).
        best_epoch: number of the epoch with the best weights, which is marked.
    """
    names = [name for name in history.columns if name not in IGNORED and not name.startswith("val_")]
    names += [name[4:] for name in history.columns if name.startswith("val_") and name[4:] not in names]
    names = [name for name in names if np.issubdtype(history.dtypes.get(name, history.dtypes.get(f"val_{name}")), np.number)]
    order = [name for name in QUANTITIES if name != LAST]
    names.sort(key=lambda name: order.index(name) if name in order else len(order) + (name == LAST))
    epochs = history["epoch"].to_numpy() if "epoch" in history else np.arange(1, len(history) + 1)
    rows, columns = grid_shape(max(len(names), 1), 3)
    with new_figure(path, (3.6 * columns, 2.7 * rows + 0.3), synthetic) as figure:
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        marker = "o" if len(epochs) <= 12 else None
        for axes, name in zip(grid, names, strict=False):
            for column, colour, style, label in ((name, BLUE, "-", "training"), (f"val_{name}", RED, "--", "validation")):
                if column in history:
                    axes.plot(
                        epochs, history[column], style, color=colour, label=label, linewidth=1.8, marker=marker, markersize=4
                    )
            if best_epoch is not None:
                axes.axvline(best_epoch, color="#6B7480", linewidth=1, linestyle=":", label=f"best epoch ({best_epoch})")
            if name == LAST:
                axes.yaxis.set_major_formatter("{x:g}")
            axes.set_title(QUANTITIES.get(name, name.replace("_", " ")), loc="left", weight="bold")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
            axes.set_xlabel("epoch")
        for axes in grid[len(names) :]:
            axes.set_visible(False)
        handles = {label: handle for axes in grid for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
        if handles:
            figure.legend(handles.values(), handles.keys(), loc="outside upper left", ncols=3)
    return path
