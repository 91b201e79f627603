"""The common style of all figures: colours, sizes and the SYNTHETIC mark.

Colours are those of Okabe and Ito, which most colour-blind readers can distinguish. No figure relies on colour alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from keras_skin.registry import atomic_path

BLUE, ORANGE, GREEN, RED, PURPLE, SKY, YELLOW, BLACK = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#56B4E9",
    "#F0E442",
    "#000000",
)
INK, GREY = "#1B2430", "#9AA3AE"
CYCLE = (BLUE, RED, GREEN, ORANGE, PURPLE, SKY, BLACK, "#8A8A8A")
LINE_STYLES = ("-", "--", "-.", ":")
TRUE_CONTOUR, PREDICTED_CONTOUR = "#00E05A", "#FF2BD6"
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.labelsize": 10,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E3E6EA",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "axes.edgecolor": "#6B7480",
    "xtick.color": "#3C4450",
    "ytick.color": "#3C4450",
    "savefig.facecolor": "white",
    "text.parse_math": False,
}
STRIP = 0.3  # inches below a synthetic figure for its banner


@contextmanager
def new_figure(path: Path, size: tuple[float, float], synthetic: bool) -> Iterator[FigureBase]:
    """Opens a figure to draw in and writes it when the block ends.

    Args:
        path: file to write, complete or absent; its suffix decides the format.
        size: width and height in inches.
        synthetic: mark the figure as drawn from stand-in data; the banner takes a strip below `size`.
    """
    with matplotlib.rc_context(STYLE):
        if synthetic:
            figure = Figure(figsize=(size[0], size[1] + STRIP), layout="constrained")
            _mark_synthetic(figure)
            yield figure.subfigures(2, 1, squeeze=False, height_ratios=[size[1], STRIP])[0, 0]
        else:
            figure = Figure(figsize=size, layout="constrained")
            yield figure
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=130)


def _mark_synthetic(figure: Figure) -> None:
    figure.text(
        0.5,
        0.5,
        "SYNTHETIC",
        rotation=25,
        ha="center",
        va="center",
        fontsize=9 * figure.get_size_inches().min(),
        color="#B00020",
        alpha=0.13,
        weight="bold",
        zorder=10,
        in_layout=False,
    )
    figure.text(
        0.5,
        0.01,
        "SYNTHETIC DATA: drawn by a program, no patients",
        ha="center",
        va="bottom",
        fontsize=8,
        color="white",
        weight="bold",
        zorder=11,
        in_layout=False,
        bbox={"facecolor": "#B00020", "edgecolor": "none", "pad": 3},
    )


def grid_shape(count: int, columns: int) -> tuple[int, int]:
    """Returns the rows and columns of a grid for `count` panels."""
    columns = min(count, columns)
    return -(-count // columns), columns


def draw_outlines(axes: Axes, image: np.ndarray, masks: Sequence[tuple[np.ndarray, str, str]]) -> None:
    """Draws an image and the outlines of masks of its size: (mask, colour, line style), later ones on top."""
    step = max(1, max(image.shape[:2]) // 512)  # a panel is about 400 pixels wide
    image = image[::step, ::step]
    axes.imshow(image)
    for mask, colour, style in masks:
        small = np.pad(mask[::step, ::step].astype(np.float32), 1)  # the margin closes outlines at the image's border
        if small.any():
            positions = np.arange(-1, small.shape[1] - 1), np.arange(-1, small.shape[0] - 1)
            lines = axes.contour(*positions, small, levels=[0.5], colors=[colour], linewidths=1.6, linestyles=[style])
            lines.set(path_effects=[withStroke(linewidth=3, foreground=INK, alpha=0.6)])
    axes.set(xticks=[], yticks=[], xlim=(-0.5, image.shape[1] - 0.5), ylim=(image.shape[0] - 0.5, -0.5))
    axes.spines[:].set_visible(False)
    axes.grid(visible=False)


def outline_handle(colour: str, style: Any, label: str) -> Line2D:
    """Returns the legend entry of an outline."""
    stroke = [withStroke(linewidth=3.5, foreground=INK)]
    return Line2D([], [], color=colour, linestyle=style, linewidth=2, path_effects=stroke, label=label)
