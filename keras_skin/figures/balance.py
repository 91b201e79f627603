"""The figure of class counts before and after balancing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.ticker import MaxNLocator

from keras_skin.figures.style import BLUE, RED, new_figure


def class_balance(before: Mapping[str, int], after: Mapping[str, int], path: Path, synthetic: bool = False) -> Path:
    """Draws the training images of each class beside the samples that an epoch shows of it, largest class first.

    Source: paper 002, figures 3 and 4, which show the two side by side on axes of their own; here they share one axis, so that
    what grew can be told from what shrank.

    Args:
        before: class -> training images.
        after: class -> samples per epoch, for the same classes.
        path: file to write.
        synthetic: mark the figure as drawn from stand-in data.

    Returns:
        `path`.
    """
    if set(before) != set(after):
        raise ValueError(f"The classes differ: {sorted(before)} before and {sorted(after)} after balancing.")
    classes = sorted(before, key=lambda name: (-before[name], name))
    with new_figure(path, (8.0, 1.4 + 0.75 * len(classes)), synthetic) as figure:
        axes = figure.subplots()
        for counts, label, offset, colour, hatch in (
            (before, "training images", -0.2, BLUE, ""),
            (after, "samples per epoch", 0.2, RED, "//"),
        ):
            numbers, total = [counts[name] for name in classes], max(sum(counts.values()), 1)
            bars = axes.barh(
                np.arange(len(classes)) + offset,
                numbers,
                height=0.36,
                label=f"{label} ({total:,})",
                color=colour,
                hatch=hatch,
                edgecolor="white",
                linewidth=0,
            )
            axes.bar_label(bars, [f"{number:,} ({number / total:.1%})" for number in numbers], padding=3, fontsize=9)
        axes.set_yticks(range(len(classes)), [str(name) for name in classes])
        axes.invert_yaxis()
        axes.set_xlabel("images")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.margins(x=0.16)
        axes.grid(visible=False, axis="y")
        axes.set_title("Classes before and after balancing", loc="left", weight="bold")
        axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2)
    return path
