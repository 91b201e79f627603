"""The figure of one example of each class, with its masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from keras_skin.figures.segmentation_sheet import LoadImage
from keras_skin.figures.style import PREDICTED_CONTOUR, TRUE_CONTOUR, draw_outlines, new_figure, outline_handle


def class_examples(
    predictions: pd.DataFrame, classes: Sequence[str], load: LoadImage, path: Path, title: str = "", synthetic: bool = False
) -> Path | None:
    """Draws a column for each class: an image with both outlines, its true mask, and its predicted mask with the predicted class.

    Source: Fiaz et al., Frontiers in Medicine 2025, figure 8. See `typical_of_each_class` for the choice of the images.

    Args:
        predictions: columns `image_id`, `dsc`, `label`, `predicted` and `probability_<class>`.
        classes: class names.
        load: maps an image id to the image (H, W, 3) uint8 and the true and predicted masks (H, W) bool, all of one size.

    Returns None where no image has both a score and a label.
    """
    examples = typical_of_each_class(predictions, classes)
    if examples.empty:
        return None
    with new_figure(path, (max(2.0 * len(examples) + 0.4, 4.6), 6.4), synthetic) as figure:
        grid = figure.subplots(3, len(examples), squeeze=False)
        for (top, middle, bottom), (_, row) in zip(grid.T, examples.iterrows(), strict=True):
            image, truth, predicted = load(row["image_id"])
            draw_outlines(top, image, [(truth, TRUE_CONTOUR, "solid"), (predicted, PREDICTED_CONTOUR, "dashed")])
            top.set_title(f"{row['label']}\n{row['image_id']}", fontsize=9, loc="left")
            draw_outlines(middle, _grey(truth), [])
            draw_outlines(bottom, _grey(predicted), [])
            probability = row[f"probability_{row['predicted']}"]
            bottom.set_title(f"{row['predicted']}, p = {probability:.2f}\nDSC {row['dsc']:.3f}", fontsize=9, loc="left")
        for axes, name in zip(grid[:, 0], ("image", "true mask", "predicted mask"), strict=True):
            axes.set_ylabel(name, fontsize=11, weight="bold")
        handles = [
            outline_handle(TRUE_CONTOUR, "-", "true outline"),
            outline_handle(PREDICTED_CONTOUR, "--", "predicted outline"),
        ]
        figure.legend(handles=handles, loc="outside lower left", ncols=2)
        figure.suptitle(title or "An example of each class", x=0.01, ha="left", weight="bold")
    return path


def typical_of_each_class(predictions: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """Returns a row for each class that has one: of the correctly classified images (of all if there are none) that with the
    score `dsc` next to their median.

    Args:
        predictions: as in `class_examples`.
        classes: class names, in the order of the rows.
    """
    scored = predictions[predictions["dsc"].notna()].sort_values("image_id")
    rows = []
    for of_class in classes:
        members = scored[scored["label"] == of_class]
        right = members[members["predicted"] == of_class]
        scores = (members if right.empty else right)["dsc"]
        if not scores.empty:
            rows.append((scores - scores.median()).abs().idxmin())
    return scored.loc[rows]


def _grey(mask: np.ndarray) -> np.ndarray:
    return np.repeat(np.uint8(255) * mask[..., None], 3, axis=-1)
