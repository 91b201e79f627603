"""The figure of how many images of each class a split holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from keras_skin.figures.style import CYCLE, new_figure


def class_counts(counts: pd.DataFrame, path: Path, synthetic: bool = False) -> Path:
    """Draws how many images of each class every split holds.

    Args:
        counts: classes as index, splits (training, validation, test ...) as columns.
        path: file to write.
        synthetic: mark the figure.

    Returns:
        `path`.
    """
    splits, classes = list(counts.columns), [str(name) for name in counts.index]
    height = 0.8 / len(splits)
    with new_figure(path, (8.0, 1.3 + 0.42 * max(1, len(splits)) * len(classes) + 0.2), synthetic) as figure:
        axes = figure.subplots()
        for index, split in enumerate(splits):
            positions = np.arange(len(classes)) + (index - (len(splits) - 1) / 2) * height
            bars = axes.barh(
                positions,
                counts[split],
                height=height * 0.9,
                label=str(split),
                color=CYCLE[index % len(CYCLE)],
                hatch=("", "//", "..", "xx")[index % 4],
                edgecolor="white",
                linewidth=0,
            )
            axes.bar_label(bars, [f"{value:,}" for value in counts[split]], padding=3, fontsize=9)
        axes.set_yticks(range(len(classes)), classes)
        axes.invert_yaxis()
        axes.set_xlabel("images")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.margins(x=0.1)
        axes.grid(visible=False, axis="y")
        axes.set_title("Images per class", loc="left", weight="bold")
        axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=len(splits))
    return path
