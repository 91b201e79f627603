"""The figure of the best, the median and the worst segmentations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from keras_skin.figures.style import PREDICTED_CONTOUR, TRUE_CONTOUR, draw_outlines, new_figure, outline_handle

LoadImage = Callable[[str], tuple[np.ndarray, np.ndarray, np.ndarray]]


def segmentation_sheet(
    predictions: pd.DataFrame, load: LoadImage, path: Path, count: int = 4, title: str = "", synthetic: bool = False
) -> Path | None:
    """Draws the best, the median and the worst segmentations with both outlines.

    Args:
        predictions: columns `image_id` and `dsc`, optionally `label` and `predicted`. Few images give fewer columns, so that no
            image is drawn twice.
        load: maps an image id to the image (H, W, 3) uint8 and the true and predicted masks (H, W) bool, all of one size.
        count: images per row.

    Returns None where no image has a score.
    """
    ranked = predictions[predictions["dsc"].notna()].sort_values(["dsc", "image_id"], ascending=[False, True])
    if ranked.empty:
        return None
    count = max(1, min(count, len(ranked) // 3))
    middle = (len(ranked) - count) // 2
    tables = {"best": ranked.head(count), "median": ranked.iloc[middle : middle + count], "worst": ranked.tail(count)}
    names = list(tables)[: len(ranked)] if len(ranked) != 2 else ["best", "worst"]
    with new_figure(path, (max(2.9 * count + 0.4, 4.2), 2.75 * len(names) + 0.6), synthetic) as figure:
        grid = figure.subplots(len(names), count, squeeze=False)
        for line, name in zip(grid, names, strict=True):
            for axes, (_, row) in zip(line, tables[name].iterrows(), strict=True):
                image, truth, predicted = load(row["image_id"])
                draw_outlines(axes, image, [(truth, TRUE_CONTOUR, "solid"), (predicted, PREDICTED_CONTOUR, "dashed")])
                axes.set_title(_caption(row), fontsize=9, loc="left")
            line[0].set_ylabel(name, fontsize=13, weight="bold")
        handles = [
            outline_handle(TRUE_CONTOUR, "-", "true outline"),
            outline_handle(PREDICTED_CONTOUR, "--", "predicted outline"),
        ]
        figure.legend(handles=handles, loc="outside lower left", ncols=2)
        figure.suptitle(title or "Best, median and worst segmentations", x=0.01, ha="left", weight="bold")
    return path


def _caption(row: pd.Series) -> str:
    label = row.get("label") or "no label"
    predicted = f", predicted {row['predicted']}" if "predicted" in row else ""
    return f"{row['image_id']}  DSC {row['dsc']:.3f}\n{label}{predicted}"
