"""The figure of a curriculum: admitted images and replays of each class in each epoch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator, PercentFormatter

from keras_skin.figures.style import INK, new_figure

MAX_NUMBERED_EPOCHS = 24
"""With more epochs, numbers do not fit into the cells."""


def curriculum_figure(
    admitted: pd.DataFrame, replayed: pd.DataFrame, images: Mapping[str, int], path: Path, synthetic: bool = False
) -> Path | None:
    """Draws, for each class and epoch, the share of admitted images and the number of replays.

    Args:
        admitted: number of admitted images, epochs (from 1, the index) by classes (the columns).
        replayed: number of replayed samples, in the same layout.
        images: class -> number of training images. Common classes are drawn above rare ones.

    Returns None where there is no epoch or no image.
    """
    classes = sorted((name for name in admitted.columns if images[name]), key=lambda name: -images[name])
    if admitted.empty or not classes:
        return None
    epochs = admitted.index.to_numpy()
    shares = (admitted[classes] / [images[name] for name in classes]).to_numpy().T
    replays = replayed[classes].to_numpy().T
    width = 3.4 + float(np.clip(0.47 * len(epochs), 4.2, 11.3))
    with new_figure(path, (width, 1.9 + 2 * max(0.32 * len(classes), 0.9)), synthetic) as figure:
        above, below = figure.subplots(2, 1, sharex=True)
        names = [f"{name} (n = {images[name]:,})" for name in classes]
        numbers = [[_per_cent(share) for share in row] for row in shares]
        image = _cells(above, shares, epochs, names, numbers, "Blues", 1.0)
        bar = figure.colorbar(image, ax=above, format=PercentFormatter(1, decimals=0))
        bar.set_label("admitted")
        bar.outline.set_visible(False)
        numbers = [["–" if not count else f"{count:,}" for count in row] for row in replays]
        image = _cells(below, replays, epochs, classes, numbers, "Oranges", max(1, replays.max()))
        bar = figure.colorbar(image, ax=below)
        bar.locator = MaxNLocator(integer=True, nbins=5)
        bar.update_ticks()
        bar.set_label("samples")
        bar.outline.set_visible(False)
        above.set_title("Admitted: share of each class, per cent", loc="left", weight="bold")
        below.set_title(f"Replayed: samples of each class ({replays.sum():,} in all)", loc="left", weight="bold")
        below.set_xlabel("epoch")
    return path


def _per_cent(share: float) -> str:
    """Formats a share so that nearly none and nearly all differ from none and all."""
    if 0 < share < 0.005:
        return "<1"
    if 0.995 <= share < 1:
        return ">99"
    return f"{100 * share:.0f}" if share else "–"


def _cells(
    axes: Axes, values: np.ndarray, epochs: np.ndarray, names: list[str], numbers: list[list[str]], colours: str, maximum: float
) -> AxesImage:
    """Draws a heat map with one row per class and one column per epoch."""
    image = axes.imshow(
        values,
        cmap=colours,
        vmin=0,
        vmax=maximum,
        aspect="auto",
        interpolation="nearest",
        extent=(epochs[0] - 0.5, epochs[-1] + 0.5, len(names) - 0.5, -0.5),
    )
    if len(epochs) <= MAX_NUMBERED_EPOCHS:
        for row, column in np.ndindex(values.shape):
            colour = "white" if values[row, column] > 0.6 * maximum else INK
            axes.text(float(epochs[column]), row, numbers[row][column], ha="center", va="center", fontsize=8, color=colour)
    axes.set_yticks(range(len(names)), names)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12))
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    return image
