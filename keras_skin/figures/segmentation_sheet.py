"""The figure of the best, the median and the worst segmentations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from keras_skin.figures.style import INK, PREDICTED_CONTOUR, TRUE_CONTOUR, draw_outlines, new_figure

LoadImage = Callable[[str], tuple[np.ndarray, np.ndarray, np.ndarray]]


def segmentation_sheet(
    predictions: pd.DataFrame, load: LoadImage, path: Path, count: int = 4, title: str = "", synthetic: bool = False
) -> Path | None:
    """Draws the best, the median and the worst segmentations with both contours.

    Args:
        predictions: columns `image_id`, `dsc`, and `label`, `predicted` where there are any. A table with few images gives
            fewer columns, so that none is drawn twice.
        load: maps an image id to the image (H, W, 3) uint8, the true and the predicted mask (H, W) bool, all of one size.
        path: file to write.
        count: images per row.
        title: heading.
        synthetic: mark the figure.

    Returns:
        `path`, or None where no image has a score.
    """
    ranked = predictions[predictions["dsc"].notna()].sort_values(["dsc", "image_id"], ascending=[False, True])
    if ranked.empty:
        return None
    count = max(1, min(count, len(ranked) // 3))
    middle = (len(ranked) - count) // 2
    chosen = {"best": ranked.head(count), "median": ranked.iloc[middle : middle + count], "worst": ranked.tail(count)}
    shown = list(chosen)[: len(ranked)] if len(ranked) != 2 else ["best", "worst"]
    with new_figure(path, (max(2.9 * count + 0.4, 4.2), 2.75 * len(shown) + 0.6), synthetic) as figure:
        grid = figure.subplots(len(shown), count, squeeze=False)
        for line, name in zip(grid, shown, strict=True):
            for axes, (_, row) in zip(line, chosen[name].iterrows(), strict=True):
                image, truth, predicted = load(row["image_id"])
                draw_outlines(axes, image, [(truth, TRUE_CONTOUR, "solid"), (predicted, PREDICTED_CONTOUR, "dashed")])
                axes.set_title(_caption(row), fontsize=9, loc="left")
            line[0].set_ylabel(name, fontsize=13, weight="bold")
        line = {"linewidth": 2, "path_effects": [withStroke(linewidth=3.5, foreground=INK)]}
        handles = [
            Line2D([], [], color=TRUE_CONTOUR, linestyle="-", label="true outline", **line),
            Line2D([], [], color=PREDICTED_CONTOUR, linestyle="--", label="predicted outline", **line),
        ]
        figure.legend(handles=handles, loc="outside lower left", ncols=2)
        figure.suptitle(title or "Best, median and worst segmentations", x=0.01, ha="left", weight="bold")
    return path


def _caption(row: pd.Series) -> str:
    label = row.get("label") or "no label"
    predicted = f", predicted {row['predicted']}" if "predicted" in row else ""
    return f"{row['image_id']}  DSC {row['dsc']:.3f}\n{label}{predicted}"
