"""The figures of a report, drawn with matplotlib's Figure objects and written to files.

Colours are those of Okabe and Ito, which most colour-blind readers can tell apart; no figure speaks through colour alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator, PercentFormatter
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from keras_skin.evaluation import segmentation
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
QUANTITIES = {
    "loss": "Loss",
    "mask_loss": "Loss, mask",
    "label_loss": "Loss, class",
    "mask_dsc": "DSC",
    "mask_iou": "IoU",
    "label_accuracy": "Accuracy",
    "label_balanced_accuracy": "Balanced accuracy",
    "label_f1_weighted": "F1, weighted",
    "label_auc": "AUC",
    "learning_rate": "Learning rate",
}
LAST = "learning_rate"
STRIP = 0.3  # inches kept free below a synthetic figure for its banner
# Columns of history.csv that say nothing about learning.
NOT_DRAWN = ("epoch", "step", "seconds", "time_left")

LoadImage = Callable[[str], tuple[np.ndarray, np.ndarray, np.ndarray]]


@contextmanager
def _figure(path: Path, size: tuple[float, float], synthetic: bool) -> Iterator[FigureBase]:
    """A styled area to draw in; its figure is marked, if need be, and written when the block ends."""
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


def _grid(count: int, columns: int) -> tuple[int, int]:
    columns = min(count, columns)
    return -(-count // columns), columns


def learning_curves(history: pd.DataFrame, path: Path, best_epoch: int | None = None, synthetic: bool = False) -> Path:
    """Draws one panel per quantity, training beside validation.

    Args:
        history: one row per epoch; a column `x` is a training quantity, `val_x` the same on the validation part. `epoch` gives
            the numbers on the axis (1, 2, ... without it).
        path: file to write; its suffix decides the format.
        best_epoch: number of the epoch whose weights were kept; marked.
        synthetic: mark the figure as drawn from stand-in data.

    Returns:
        `path`.
    """
    names = [name for name in history.columns if name not in NOT_DRAWN and not name.startswith("val_")]
    names += [name[4:] for name in history.columns if name.startswith("val_") and name[4:] not in names]
    names = [name for name in names if np.issubdtype(history.dtypes.get(name, history.dtypes.get(f"val_{name}")), np.number)]
    order = [name for name in QUANTITIES if name != LAST]
    names.sort(key=lambda name: order.index(name) if name in order else len(order) + (name == LAST))
    epochs = history["epoch"].to_numpy() if "epoch" in history else np.arange(1, len(history) + 1)
    rows, columns = _grid(max(len(names), 1), 3)
    with _figure(path, (3.6 * columns, 2.7 * rows + 0.3), synthetic) as figure:
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        marker = "o" if len(epochs) <= 12 else None
        for axes, name in zip(grid, names, strict=False):
            for column, colour, style, label in ((name, BLUE, "-", "training"), (f"val_{name}", RED, "--", "validation")):
                if column in history:
                    axes.plot(
                        epochs, history[column], style, color=colour, label=label, linewidth=1.8, marker=marker, markersize=4
                    )
            if best_epoch is not None:
                axes.axvline(best_epoch, color="#6B7480", linewidth=1, linestyle=":", label=f"best epoch ({best_epoch})")
            if name == LAST:
                axes.yaxis.set_major_formatter("{x:g}")
            axes.set_title(QUANTITIES.get(name, name.replace("_", " ")), loc="left", weight="bold")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
            axes.set_xlabel("epoch")
        for axes in grid[len(names) :]:
            axes.set_visible(False)
        handles = {label: handle for axes in grid for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
        if handles:
            figure.legend(handles.values(), handles.keys(), loc="outside upper left", ncols=3)
    return path


def confusion_matrix(confusion: np.ndarray, classes: Sequence[str], path: Path, title: str = "", synthetic: bool = False) -> Path:
    """Draws counts, with each row's shares as colour and per cent.

    Args:
        confusion: (K, K) counts, true class by row.
        classes: K names.
        path: file to write.
        title: heading.
        synthetic: mark the figure.

    Returns:
        `path`.
    """
    support = confusion.sum(axis=1, keepdims=True)
    shares = np.divide(confusion, support, out=np.zeros(confusion.shape), where=support > 0)
    few, side = len(classes) < 4, 1.05 * len(classes)
    with _figure(path, (max(side + 2.8, 4.6), max(side + 1.3, 3.3)), synthetic) as figure:
        axes = figure.subplots()
        image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for row, column in np.ndindex(confusion.shape):
            share = f"{shares[row, column]:.1%}" if support[row, 0] else "-"
            axes.text(
                column,
                row,
                f"{confusion[row, column]:,}\n{share}",
                ha="center",
                va="center",
                color="white" if shares[row, column] > 0.55 else "#1B2430",
                fontsize=11 if few else 9,
            )
        names = [f"{name}\n(n = {count:,})" for name, count in zip(classes, support[:, 0], strict=True)]
        axes.set_xticks(range(len(classes)), classes, rotation=0 if few else 35, ha="center" if few else "right")
        axes.set_yticks(range(len(classes)), names)
        axes.set(xlabel="predicted class", ylabel="true class")
        axes.set_title(title or "Confusion matrix", loc="left", weight="bold")
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        bar = figure.colorbar(image, ax=axes, shrink=0.8, format=PercentFormatter(1, decimals=0))
        bar.set_label("share of the true class")
        bar.outline.set_visible(False)
    return path


def roc_and_precision_recall(
    predictions: pd.DataFrame, classes: Sequence[str], path: Path, title: str = "", synthetic: bool = False
) -> Path | None:
    """Draws ROC and precision-recall curves: of the second class where there are two, else of each class against the rest.

    Args:
        predictions: columns `label` and `probability_<class>`; rows without a label are left out.
        classes: K names.
        path: file to write.
        title: heading.
        synthetic: mark the figure.

    Returns:
        `path`, or None (and no file) where all images are of one class.
    """
    known = predictions[predictions["label"].isin(classes)]
    shown = [classes[1]] if len(classes) == 2 else list(classes)
    shown = [name for name in shown if 0 < (known["label"] == name).sum() < len(known)]
    if not shown:
        return None
    many = len(shown) > 3  # a legend of many lines would lie on the curves: it goes below them
    with _figure(path, (10.4, 5.5 + (0.25 * (len(shown) + 1) if many else 0)), synthetic) as figure:
        roc, recall = figure.subplots(1, 2)
        for index, name in enumerate(shown):
            truth, score = known["label"] == name, known[f"probability_{name}"]
            line = {"color": CYCLE[index % len(CYCLE)], "linestyle": LINE_STYLES[index // 2 % len(LINE_STYLES)], "linewidth": 2}
            false_positives, true_positives, _ = roc_curve(truth, score)
            roc.plot(false_positives, true_positives, label=f"{name}, AUC {roc_auc_score(truth, score):.3f}", **line)
            precision, found, _ = precision_recall_curve(truth, score)
            area = average_precision_score(truth, score)
            recall.plot(found, precision, drawstyle="steps-post", label=f"{name}, AP {area:.3f} (n = {truth.sum():,})", **line)
        roc.plot([0, 1], [0, 1], color="#9AA3AE", linewidth=1, linestyle=":", label="chance")
        if len(shown) == 1:
            share = (known["label"] == shown[0]).mean()
            recall.axhline(share, color="#9AA3AE", linewidth=1, linestyle=":", label=f"chance ({share:.2f})")
        roc.set(xlabel="false positive rate (1 - specificity)", ylabel="true positive rate (sensitivity)")
        recall.set(xlabel="recall (sensitivity)", ylabel="precision")
        for axes, name, corner in ((roc, "ROC", "lower right"), (recall, "Precision and recall", "lower left")):
            axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.03))
            axes.set_box_aspect(1)  # the layout takes it into account, as it does not an equal aspect
            axes.set_anchor("N")
            axes.set_title(name, loc="left", weight="bold")
            axes.legend(**({"loc": "upper left", "bbox_to_anchor": (0.0, -0.13)} if many else {"loc": corner}))
        figure.suptitle(f"{title} (n = {len(known):,})" if title else f"n = {len(known):,}", x=0.01, ha="left")
    return path


def segmentation_box_plots(
    predictions: Mapping[str, pd.DataFrame], path: Path, metrics: Sequence[str] = ("dsc", "iou", "mcc"), synthetic: bool = False
) -> Path | None:
    """Draws the per-image scores of each split as box and points.

    Args:
        predictions: split -> table with a column per metric; NaN is left out.
        path: file to write.
        metrics: columns to draw, one panel each.
        synthetic: mark the figure.

    Returns:
        `path`, or None where no image has a score.
    """
    predictions = {name: table for name, table in predictions.items() if metrics[0] in table and table[metrics[0]].notna().any()}
    if not predictions:
        return None
    random = np.random.default_rng(0)  # only spreads the points sideways
    with _figure(path, (max(2.6, 1.2 + 1.1 * len(predictions)) * len(metrics), 4.0), synthetic) as figure:
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
                boxprops={"color": "#1B2430"},
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
    with _figure(path, (max(2.9 * count + 0.4, 4.2), 2.75 * len(shown) + 0.6), synthetic) as figure:
        grid = figure.subplots(len(shown), count, squeeze=False)
        for line, name in zip(grid, shown, strict=True):
            for axes, (_, row) in zip(line, chosen[name].iterrows(), strict=True):
                image, truth, predicted = load(row["image_id"])
                draw_outlines(axes, image, [(truth, TRUE_CONTOUR, "solid"), (predicted, PREDICTED_CONTOUR, "dashed")])
                axes.set_title(_caption(row), fontsize=9, loc="left")
            line[0].set_ylabel(name, fontsize=13, weight="bold")
        line = {"linewidth": 2, "path_effects": [withStroke(linewidth=3.5, foreground="#1B2430")]}
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


def draw_outlines(axes: Axes, image: np.ndarray, masks: Sequence[tuple[np.ndarray, str, str]]) -> None:
    """Draws an image and the outlines of masks of its size: (mask, colour, line style), later ones above."""
    step = max(1, max(image.shape[:2]) // 512)  # a cell is some 400 pixels wide
    image = image[::step, ::step]
    axes.imshow(image)
    for mask, colour, style in masks:
        small = np.pad(mask[::step, ::step].astype(np.float32), 1)  # the margin closes outlines at the image's border
        if small.any():
            positions = np.arange(-1, small.shape[1] - 1), np.arange(-1, small.shape[0] - 1)
            lines = axes.contour(*positions, small, levels=[0.5], colors=[colour], linewidths=1.6, linestyles=[style])
            lines.set(path_effects=[withStroke(linewidth=3, foreground="#1B2430", alpha=0.6)])
    axes.set(xticks=[], yticks=[], xlim=(-0.5, image.shape[1] - 0.5), ylim=(image.shape[0] - 0.5, -0.5))
    axes.spines[:].set_visible(False)
    axes.grid(visible=False)


def class_counts(counts: pd.DataFrame, path: Path, synthetic: bool = False) -> Path:
    """Draws how many images of each class each part holds.

    Args:
        counts: classes as index, parts (training, validation, test ...) as columns.
        path: file to write.
        synthetic: mark the figure.

    Returns:
        `path`.
    """
    parts, classes = list(counts.columns), [str(name) for name in counts.index]
    height = 0.8 / len(parts)
    with _figure(path, (8.0, 1.3 + 0.42 * max(1, len(parts)) * len(classes) + 0.2), synthetic) as figure:
        axes = figure.subplots()
        for index, part in enumerate(parts):
            positions = np.arange(len(classes)) + (index - (len(parts) - 1) / 2) * height
            bars = axes.barh(
                positions,
                counts[part],
                height=height * 0.9,
                label=str(part),
                color=CYCLE[index % len(CYCLE)],
                hatch=("", "//", "..", "xx")[index % 4],
                edgecolor="white",
                linewidth=0,
            )
            axes.bar_label(bars, [f"{value:,}" for value in counts[part]], padding=3, fontsize=9)
        axes.set_yticks(range(len(classes)), classes)
        axes.invert_yaxis()
        axes.set_xlabel("images")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.margins(x=0.1)
        axes.grid(visible=False, axis="y")
        axes.set_title("Images per class", loc="left", weight="bold")
        axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=len(parts))
    return path
