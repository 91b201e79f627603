"""The figure of metrics class by class, as bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_skin.evaluation.classification import PER_CLASS
from keras_skin.figures.style import CYCLE, INK, new_figure

HATCHES = ("", "//", "..", "xx")


def class_chart(
    metrics: Mapping[str, Mapping[str, Any]],
    names: Sequence[str],
    classes: Sequence[str],
    path: Path,
    title: str = "",
    synthetic: bool = False,
) -> Path | None:
    """Draws metrics of each class against the rest, a group of bars per class, with intervals.

    Source: Fiaz et al., Frontiers in Medicine 2025, figures 4 (specificity) and 5 (precision, recall and F1).

    Args:
        metrics: `{"<metric>/<class>": {"value", "ci95"}}`, those of one split's classification.
        names: metrics to draw, keys of `PER_CLASS`.
        classes: class names, in the order of the groups.

    Returns None where no class has a value. An undefined value has no bar and a hyphen in its place.
    """
    values = np.array([[metrics.get(f"{name}/{of_class}", {}).get("value", np.nan) for name in names] for of_class in classes])
    if np.isnan(values).all():
        return None
    width = 0.8 / len(names)
    with new_figure(path, (max(1.1 * len(classes) * max(1, len(names) / 2) + 1.2, 5.0), 3.8), synthetic) as figure:
        axes = figure.subplots()
        for column, name in enumerate(names):
            places = np.arange(len(classes)) + (column - (len(names) - 1) / 2) * width
            axes.bar(
                places,
                np.nan_to_num(values[:, column]),
                width * 0.92,
                color=CYCLE[column],
                hatch=HATCHES[column % len(HATCHES)],
                edgecolor="white",
                linewidth=0,
                label=PER_CLASS[name],
            )
            for place, of_class, value in zip(places, classes, values[:, column], strict=True):
                interval = metrics.get(f"{name}/{of_class}", {}).get("ci95")
                if interval:
                    axes.plot([place, place], interval, color=INK, linewidth=1.2)
                top = interval[1] if interval else 0.0 if np.isnan(value) else value
                text = "-" if np.isnan(value) else f"{value:.2f}"
                axes.annotate(text, (place, top), xytext=(0, 2), textcoords="offset points", ha="center", fontsize=7.5)
        axes.set_xticks(range(len(classes)), classes)
        axes.set_ylim(0, 1.08)
        axes.grid(visible=False, axis="x")
        axes.set_title(title, loc="left", weight="bold")
        figure.legend(loc="outside lower left", ncols=len(names))
    return path
