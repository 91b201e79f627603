"""The figure of segmentation scores as box plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from keras_skin.evaluation import segmentation
from keras_skin.figures.style import BLUE, INK, RED, new_figure


def segmentation_box_plots(
    predictions: Mapping[str, pd.DataFrame], path: Path, metrics: Sequence[str] = ("dsc", "iou", "mcc"), synthetic: bool = False
) -> Path | None:
    """Draws the per-image scores of each split as box plots with points.

    Args:
        predictions: split -> table with a column per metric; NaN is ignored.
        metrics: columns to draw, one panel each.

    Returns None where no image has a score.
    """
    predictions = {name: table for name, table in predictions.items() if metrics[0] in table and table[metrics[0]].notna().any()}
    if not predictions:
        return None
    random = np.random.default_rng(0)  # only spreads the points sideways
    with new_figure(path, (max(2.6, 1.2 + 1.1 * len(predictions)) * len(metrics), 4.0), synthetic) as figure:
        for axes, metric in zip(figure.subplots(1, len(metrics), sharey=False, squeeze=False)[0], metrics, strict=True):
            columns = [table[metric].dropna().to_numpy(float) for table in predictions.values()]
            for position, column in enumerate(columns, start=1):
                axes.scatter(
                    position + random.uniform(-0.2, 0.2, len(column)),
                    column,
                    s=9,
                    color=BLUE,
                    linewidths=0,
                    zorder=1,
                    alpha=float(np.clip(40 / max(len(column), 1), 0.12, 0.7)),
                )
            axes.boxplot(
                columns,
                widths=0.55,
                showfliers=False,
                showmeans=True,
                zorder=3,
                medianprops={"color": RED, "linewidth": 2},
                boxprops={"color": INK},
                meanprops={"marker": "D", "markerfacecolor": "white", "markeredgecolor": RED, "markersize": 5},
            )
            labels = [
                f"{name.removeprefix('external/')}\nn = {len(column):,}"
                for name, column in zip(predictions, columns, strict=True)
            ]
            axes.set_xticks(range(1, len(columns) + 1), labels)
            axes.set_title(segmentation.METRICS[metric][0], loc="left", weight="bold")
            axes.set_ylim(min(0.0, *(column.min(initial=0.0) for column in columns)) - 0.02, 1.02)
            axes.grid(visible=False, axis="x")
        figure.supxlabel(
            "each point one image; line: median, diamond: mean, box: quartiles, whiskers: 1.5 times the box",
            fontsize=8.5,
            color="#3C4450",
        )
    return path
