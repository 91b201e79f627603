"""The figure of images whose class was told rightly, and of others where it was not, with the probability."""

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
    """Draws a row of images classified rightly and a row of others, in each those that the model was surest of.

    Source: Khurshid et al., Scientific Reports, 2025, figure 5a, which shows the highest probability of either kind. Here the
    true classes take turns, so that a common one does not fill a row.

    Args:
        predictions: columns `image_id`, `label`, `predicted` and `probability_<class>`; rows without a label are left out.
        classes: names of the classes.
        load: maps an image id to the image (H, W, 3) uint8.
        path: file to write; its suffix decides the format.
        count: images per row.
        title: heading.
        synthetic: mark the figure as drawn from stand-in data.

    Returns:
        `path`, or None (and no file) where no image has a label.
    """
    known = predictions[predictions["label"].isin(list(classes))]
    if known.empty:
        return None
    sure = known[[f"probability_{name}" for name in classes]].max(axis=1)
    right = known["label"] == known["predicted"]
    rows = {
        name: in_turn(known[those].assign(probability=sure[those]), count)
        for name, those in (("right", right), ("wrong", ~right))
        if those.any()
    }
    width = max(len(chosen) for chosen in rows.values())
    with new_figure(path, (max(2.3 * width + 0.4, 4.2), 2.4 * len(rows) + 0.5), synthetic) as figure:
        grid = figure.subplots(len(rows), width, squeeze=False)
        for line, (name, chosen) in zip(grid, rows.items(), strict=True):
            for axes, (_, row) in zip(line, chosen.iterrows(), strict=False):
                draw_outlines(axes, load(row["image_id"]), [])
                axes.set_title(f"{row['image_id']}\n{_caption(row)}", fontsize=8.5, loc="left")
            for axes in line[len(chosen) :]:
                axes.set_visible(False)
            total = int(right.sum() if name == "right" else (~right).sum())
            line[0].set_ylabel(f"{name} ({total:,})", fontsize=13, weight="bold")
        figure.suptitle(title or "Right and wrong", x=0.01, ha="left", weight="bold")
    return path


def in_turn(rows: pd.DataFrame, count: int) -> pd.DataFrame:
    """Up to `count` rows: the surest of each true class, then the second of each, and so on.

    Args:
        rows: columns `label`, `probability` and `image_id`, which decides between equals.
        count: how many.
    """
    ranked = rows.sort_values(["probability", "image_id"], ascending=[False, True])
    return ranked.iloc[np.argsort(ranked.groupby("label").cumcount(), kind="stable")].head(count)


def _caption(row: pd.Series) -> str:
    wrong = "" if row["label"] == row["predicted"] else f", predicted {row['predicted']}"
    return f"{row['label']}{wrong}  {row['probability']:.2f}"
