"""The figure of images that one run classifies correctly and another wrongly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from keras_skin.evaluation.comparison import Side, letters
from keras_skin.figures.examples import in_turn
from keras_skin.figures.style import draw_outlines, new_figure

OTHERS = 3
"""Sides that are set against the reference at most."""


def disagreements(
    sides: Sequence[Side],
    reference: int,
    classes: Sequence[str],
    load: Callable[[str, str], np.ndarray],
    path: Path,
    count: int = 6,
    title: str = "",
    synthetic: bool = False,
) -> Path | None:
    """Draws, for the reference and each other side, the images that only one of the two classifies correctly.

    Source: Khurshid et al., Scientific Reports, 2025, figure 7a, which shows images that DualRefNet classifies correctly and a
    transformer wrongly, with both probabilities. Here the opposite case is shown too, and the true classes take turns, the most
    confident image of each first.

    Args:
        sides: all sides of the comparison; the first run of each is shown. Sides without classes are skipped.
        reference: position of the side that the others are set against.
        classes: class names.
        load: maps a data set and an image id to the image (H, W, 3) uint8.
        count: images per row.

    Returns None where no two sides disagree.
    """
    side_letters = letters(sides)
    tables = {
        side_letters[side.name]: _labelled(side.runs[0].predictions, classes)
        for side in sides
        if "predicted" in side.runs[0].predictions
    }
    first = side_letters[sides[reference].name]
    others = [letter for letter in tables if letter != first][:OTHERS] if first in tables else []
    groups: dict[str, tuple[tuple[str, str], pd.DataFrame]] = {}
    for other in others:
        for right, wrong in ((first, other), (other, first)):
            rows = _right_and_wrong(tables[right], tables[wrong])
            if len(rows):
                groups[f"{right} right, {wrong} wrong ({len(rows):,})"] = ((right, wrong), in_turn(rows, count))
    if not groups:
        return None
    width = max(len(rows) for _, rows in groups.values())
    with new_figure(path, (max(2.3 * width + 0.4, 5.0), 2.75 * len(groups) + 0.9), synthetic) as figure:
        grid = figure.subplots(len(groups), width, squeeze=False)
        for line, (name, (pair, rows)) in zip(grid, groups.items(), strict=True):
            for axes, index in zip(line, rows.index, strict=False):
                row = rows.loc[index]
                draw_outlines(axes, load(str(row["dataset"]), str(row["image_id"])), [])
                captions = [_caption(letter, tables[letter].loc[index]) for letter in pair]
                axes.set_title("\n".join([str(row["image_id"]), f"true: {row['label']}", *captions]), fontsize=8.5, loc="left")
            for axes in line[len(rows) :]:
                axes.set_visible(False)
            line[0].set_ylabel(name, fontsize=10, weight="bold")
        names = [f"{letter}: {name}" for name, letter in side_letters.items() if letter in (first, *others)]
        figure.suptitle("\n".join([title or "Images that only one run classifies correctly", *names]), x=0.01, ha="left")
    return path


def _labelled(predictions: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """The labelled rows with the probability of the predicted class."""
    table = predictions[predictions["label"].isin(list(classes))]
    return table.assign(probability=table[[f"probability_{name}" for name in classes]].max(axis=1))


def _right_and_wrong(right: pd.DataFrame, wrong: pd.DataFrame) -> pd.DataFrame:
    """The rows of `right` that are right there and wrong in `wrong`."""
    return right[(right["predicted"] == right["label"]) & (wrong["predicted"] != wrong["label"])]


def _caption(letter: str, row: pd.Series) -> str:
    return f"{letter}: {row['predicted']} {row['probability']:.2f}"
