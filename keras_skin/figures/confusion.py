"""The figure of a confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.ticker import PercentFormatter

from keras_skin.figures.style import INK, new_figure


def confusion_matrix(confusion: np.ndarray, classes: Sequence[str], path: Path, title: str = "", synthetic: bool = False) -> Path:
    """Draws counts, with each row's shares as colours and percentages.

    Args:
        confusion: (K, K) counts, true class by row.
        classes: K names.
    """
    support = confusion.sum(axis=1, keepdims=True)
    shares = np.divide(confusion, support, out=np.zeros(confusion.shape), where=support > 0)
    few, side = len(classes) < 4, 1.05 * len(classes)
    with new_figure(path, (max(side + 2.8, 4.6), max(side + 1.3, 3.3)), synthetic) as figure:
        axes = figure.subplots()
        image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for row, column in np.ndindex(confusion.shape):
            share = f"{shares[row, column]:.1%}" if support[row, 0] else "-"
            axes.text(
                column,
                row,
                f"{confusion[row, column]:,}\n{share}",
                ha="center",
                va="center",
                color="white" if shares[row, column] > 0.55 else INK,
                fontsize=11 if few else 9,
            )
        names = [f"{name}\n(n = {count:,})" for name, count in zip(classes, support[:, 0], strict=True)]
        axes.set_xticks(range(len(classes)), classes, rotation=0 if few else 35, ha="center" if few else "right")
        axes.set_yticks(range(len(classes)), names)
        axes.set(xlabel="predicted class", ylabel="true class")
        axes.set_title(title or "Confusion matrix", loc="left", weight="bold")
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        bar = figure.colorbar(image, ax=axes, shrink=0.8, format=PercentFormatter(1, decimals=0))
        bar.set_label("share of the true class")
        bar.outline.set_visible(False)
    return path
