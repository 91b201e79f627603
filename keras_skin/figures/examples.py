"""The figure of correctly and of wrongly classified images, with the probability."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from keras_skin.figures.style import draw_outlines, new_figure


def examples_figure(
    predictions: pd.DataFrame,
    classes: Sequence[str],
    load: Callable[[str], np.ndarray],
    path: Path,
    count: int = 6,
    title: str = "",
    synthetic: bool = False,
) -> Path | None:
    """Draws a row of correctly and a row of wrongly classified images, those with the highest probability of the predicted class.

    Source: Khurshid et al., Scientific Reports, 2025, figure 5a, which shows the highest probabilities of both kinds. Here the
    true classes take turns, so that a common class does not fill a row.

    Args:
        predictions: columns `image_id`, `label`, `predicted` and `probability_<class>`; rows without a label are ignored.
        classes: class names.
        load: maps an image id to the image (H, W, 3) uint8.
        count: images per row.

    Returns None where no image has a label.
    """
    labelled = predictions[predictions["label"].isin(list(classes))]
    if labelled.empty:
        return None
    labelled = labelled.assign(probability=labelled[[f"probability_{name}" for name in classes]].max(axis=1))
    is_right = labelled["label"] == labelled["predicted"]
    tables = {"right": labelled[is_right], "wrong": labelled[~is_right]}
    examples = {name: in_turn(table, count) for name, table in tables.items() if len(table)}
    width = max(len(rows) for rows in examples.values())
    with new_figure(path, (max(2.3 * width + 0.4, 4.2), 2.4 * len(examples) + 0.5), synthetic) as figure:
        grid = figure.subplots(len(examples), width, squeeze=False)
        for line, (name, rows) in zip(grid, examples.items(), strict=True):
            for axes, (_, row) in zip(line, rows.iterrows(), strict=False):
                draw_outlines(axes, load(row["image_id"]), [])
                axes.set_title(f"{row['image_id']}\n{_caption(row)}", fontsize=8.5, loc="left")
            for axes in line[len(rows) :]:
                axes.set_visible(False)
            line[0].set_ylabel(f"{name} ({len(tables[name]):,})", fontsize=13, weight="bold")
        figure.suptitle(title or "Right and wrong", x=0.01, ha="left", weight="bold")
    return path


def in_turn(rows: pd.DataFrame, count: int) -> pd.DataFrame:
    """Returns up to `count` rows: the most probable of each true class, then the second of each, and so on.

    Args:
        rows: columns `label`, `probability` and `image_id`, which breaks ties.
        count: maximum number of rows.
    """
    ranked = rows.sort_values(["probability", "image_id"], ascending=[False, True])
    return ranked.iloc[np.argsort(ranked.groupby("label").cumcount(), kind="stable")].head(count)


def _caption(row: pd.Series) -> str:
    wrong = "" if row["label"] == row["predicted"] else f", predicted {row['predicted']}"
    return f"{row['label']}{wrong}  {row['probability']:.2f}"
