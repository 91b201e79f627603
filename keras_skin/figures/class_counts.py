"""Figures of class counts: in each split, and before and after balancing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from keras_skin.figures.style import CYCLE, new_figure


def class_counts(counts: pd.DataFrame, path: Path, synthetic: bool = False) -> Path:
    """Draws how many images of each class every split holds.

    Args:
        counts: classes as index, splits (training, validation, test ...) as columns.
    """
    return _grouped_bars(counts, lambda count, total: f"{count:,}", path, "Images per class", synthetic)


def class_balance(before: Mapping[str, int], after: Mapping[str, int], path: Path, synthetic: bool = False) -> Path:
    """Draws the training images of each class and its samples in an epoch, largest class first.

    Source: paper 002, figures 3 and 4, which have separate axes; here both share one axis, so that growth and loss show.

    Args:
        before: class -> training images.
        after: class -> samples per epoch, for the same classes.
    """
    if set(before) != set(after):
        raise ValueError(f"The classes differ: {sorted(before)} before and {sorted(after)} after balancing.")
    classes = sorted(before, key=lambda name: (-before[name], name))
    columns = {"training images": before, "samples per epoch": after}
    counts = pd.DataFrame(
        {f"{label} ({sum(column.values()):,})": [column[name] for name in classes] for label, column in columns.items()}, classes
    )
    title = "Classes before and after balancing"
    return _grouped_bars(counts, lambda count, total: f"{count:,} ({count / max(total, 1):.1%})", path, title, synthetic)


def _grouped_bars(counts: pd.DataFrame, text: Callable[[float, float], str], path: Path, title: str, synthetic: bool) -> Path:
    """Draws a bar per class (index) and series (columns); `text` makes a bar's label from its count and the series' total."""
    series = len(counts.columns)
    height = 0.8 / series
    with new_figure(path, (8.0, 1.5 + 0.42 * series * len(counts)), synthetic) as figure:
        axes = figure.subplots()
        for index, label in enumerate(counts.columns):
            bars = axes.barh(
                np.arange(len(counts)) + (index - (series - 1) / 2) * height,
                counts[label],
                height=height * 0.9,
                label=str(label),
                color=CYCLE[index % len(CYCLE)],
                hatch=("", "//", "..", "xx")[index % 4],
                edgecolor="white",
                linewidth=0,
            )
            axes.bar_label(bars, [text(count, counts[label].sum()) for count in counts[label]], padding=3, fontsize=9)
        axes.set_yticks(range(len(counts)), [str(name) for name in counts.index])
        axes.invert_yaxis()
        axes.set_xlabel("images")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.margins(x=0.16)
        axes.grid(visible=False, axis="y")
        axes.set_title(title, loc="left", weight="bold")
        axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=series)
    return path
