"""Figures of a comparison of runs: differences, curves, and every run's outlines and heat maps of the same images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from keras_skin.evaluation.comparison import Comparison, Row, Side, letters
from keras_skin.evaluation.comparison_report import headline
from keras_skin.evaluation.measured_run import explained_images
from keras_skin.evaluation.report import Picture, split_label
from keras_skin.figures.box_plots import segmentation_box_plots
from keras_skin.figures.curves import classes_with_curves, curve
from keras_skin.figures.disagreements import disagreements
from keras_skin.figures.embedding_comparison import embedding_comparison
from keras_skin.figures.style import (
    CYCLE,
    GREEN,
    GREY,
    INK,
    LINE_STYLES,
    RED,
    draw_outlines,
    grid_shape,
    new_figure,
    outline_handle,
)

TRUTH = "#FFFFFF"
OUTLINES = ("#2F7BFF", "#00E5E5", "#FFA500", "#FF2BD6", "#7CFC00", "#FFE135", "#C08CFF", "#FF6F61")
"""Colours of the runs' outlines on skin: blue and cyan first, as in paper 001."""

LoadOriginal = Callable[[str, str], tuple[np.ndarray, np.ndarray]]
"""(data set, image id) -> image (H, W, 3) uint8 and true mask (H, W) bool."""


def differences(comparison: Comparison, rows: Sequence[Row], path: Path, synthetic: bool = False) -> Path | None:
    """Draws the difference of each side to the reference with its interval, one line per metric.

    Args:
        comparison: the comparison.
        rows: the metrics to draw.

    Returns None where no row has a difference.
    """
    rows = [row for row in rows if any(row.differences)]
    if not rows:
        return None
    indices = [index for index in range(len(comparison.sides)) if any(row.differences[index] for row in rows)]
    with new_figure(path, (8.4, 1.3 + 0.22 * len(indices) + len(rows) * (0.26 + 0.17 * len(indices))), synthetic) as figure:
        axes = figure.subplots()
        for place, index in enumerate(indices):
            offset = (place - (len(indices) - 1) / 2) * 0.7 / len(indices)
            for line, row in enumerate(rows):
                difference = row.differences[index]
                if difference:
                    low, high = difference["ci95"] or (difference["value"], difference["value"])
                    is_clear = bool(row.verdict(index))
                    colour = CYCLE[index % len(CYCLE)]
                    axes.plot([low, high], [line + offset] * 2, color=colour, linewidth=2.4 if is_clear else 1.4)
                    axes.plot(
                        difference["value"],
                        line + offset,
                        marker="oDs^v"[place % 5],
                        markersize=6,
                        color=colour,
                        markerfacecolor=colour if is_clear else "white",
                    )
        axes.axvline(0, color=INK, linewidth=1)
        names = [side.name for side in comparison.sides]
        others = [f"\n(to {names[row.reference]})" if row.reference != comparison.reference else "" for row in rows]
        axes.set_yticks(range(len(rows)), [row.label + other for row, other in zip(rows, others, strict=True)])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("difference and its 95 % interval; filled where the interval excludes 0")
        axes.set_title(f"Difference to {names[comparison.reference]}", loc="left", weight="bold")
        handles = [
            Line2D([], [], color=CYCLE[index % len(CYCLE)], marker="oDs^v"[place % 5], label=names[index])
            for place, index in enumerate(indices)
        ]
        figure.legend(
            handles=handles, loc="outside lower left", ncols=1 if max(len(s.name) for s in comparison.sides) > 30 else 3
        )
    return path


def curves(sides: Sequence[Side], classes: Sequence[str], path: Path, title: str = "", synthetic: bool = False) -> Path | None:
    """Draws the curves of every side on the same axes.

    Two classes give ROC and precision-recall curves of the second class; more classes give an ROC panel each. A side of several
    runs has a thin line for each run; the legend gives their mean area.

    Args:
        sides: all sides of the comparison; those without class probabilities are skipped.
        classes: K names.

    Returns None where no side classifies, or all images are of one class.
    """
    classifiers = {index: side for index, side in enumerate(sides) if "predicted" in side.runs[0].predictions}
    labelled = _labelled(sides[0].runs[0].predictions, classes)
    kinds: tuple[Literal["ROC", "PR"], ...] = ("ROC", "PR") if len(classes) == 2 else ("ROC",)
    panels = [(name, kind) for name in classes_with_curves(labelled, classes) for kind in kinds]
    if not classifiers or not panels:
        return None
    rows, columns = grid_shape(len(panels), 2 if len(classes) == 2 else 4)
    side_length = 5.2 if len(classes) == 2 else 3.4
    height = rows * (side_length + 0.35 + 0.2 * len(classifiers)) + 0.4
    with new_figure(path, (side_length * columns, height), synthetic) as figure:
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, (name, kind) in zip(grid, panels, strict=False):
            for index, side in classifiers.items():
                _draw_curve(axes, side, name, classes, kind, index)
            if kind == "ROC":
                axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":")
                axes.set(xlabel="false positive rate", ylabel="true positive rate")
            else:
                axes.set(xlabel="recall", ylabel="precision")
            count = int((labelled["label"] == name).sum())
            axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.03))
            axes.set_box_aspect(1)
            axes.set_anchor("N")
            heading = f"{name} (n = {count:,}){', precision and recall' if kind == 'PR' else ''}"
            axes.set_title(heading, loc="left", weight="bold", fontsize=11 if len(classes) == 2 else 9)
            axes.legend(loc="upper left", bbox_to_anchor=(0.0, -0.13 if len(classes) == 2 else -0.2), handlelength=2.6)
        for axes in grid[len(panels) :]:
            axes.set_visible(False)
        figure.suptitle(title or "Curves of every run", x=0.01, ha="left")
    return path


def _labelled(predictions: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    return predictions[predictions["label"].isin(classes)]


def _draw_curve(axes: Axes, side: Side, name: str, classes: Sequence[str], kind: Literal["ROC", "PR"], index: int) -> None:
    areas = []
    style: Any = {"color": CYCLE[index % len(CYCLE)], "linestyle": LINE_STYLES[index % len(LINE_STYLES)]}
    for number, run in enumerate(side.runs):
        x, y, area = curve(_labelled(run.predictions, classes), name, kind)
        areas.append(area)
        (line,) = axes.plot(x, y, linewidth=2 if len(side.runs) == 1 else 1.2, **style)
        if number == len(side.runs) - 1:
            short = side.name if len(classes) == 2 else _shortened(side.name)
            line.set_label(f"{short}, {'AUC' if kind == 'ROC' else 'AP'} {np.mean(areas):.3f}")


def _shortened(name: str, length: int = 30) -> str:
    return name if len(name) <= length else f"{name[: length // 2 - 1]}...{name[-length // 2 + 2 :]}"


def most_different(sides: Sequence[Side], count: int) -> dict[str, list[int]]:
    """Returns rows of the predictions to draw: those on whose DSC the sides differ most, and typical ones of median mean DSC.

    Returns:
        `{"runs differ most": [...], "typical": [...]}`, without images that lack the score of a side.
    """
    table = pd.DataFrame({index: side.predictions["dsc"] for index, side in enumerate(sides)}).dropna()
    spread = (table.max(axis=1) - table.min(axis=1)).sort_values(ascending=False, kind="stable")
    first = list(spread.index[:count])
    mean = table.drop(index=first).mean(axis=1)
    near = (mean - mean.median()).abs().sort_values(kind="stable")
    groups = {"runs differ most": first, "typical": list(near.index[:count])}
    return {name: rows for name, rows in groups.items() if rows}


def outlines(
    sides: Sequence[Side], load: LoadOriginal, path: Path, count: int = 4, title: str = "", synthetic: bool = False
) -> Path | None:
    """Draws images with the outlines of every run's mask and of the true mask, and under each image every run's class.

    Source: paper 001, figures 5 and 7, which show the outlines of two networks and of the true mask, and the classes of two, on a
    few images per class.

    **Deviations from the paper**: a rule chooses the images (`most_different`). In each row the classes stand side by side.

    Args:
        sides: all sides of the comparison. All runs of a side have one colour. A side without masks has its class alone.
        load: reads an image and its true mask.
        count: images per row.

    Returns None where fewer than two sides have masks.
    """
    segmenters = {index: side for index, side in enumerate(sides) if "dsc" in side.runs[0].predictions}
    groups = most_different(list(segmenters.values()), count) if len(segmenters) > 1 else {}
    if not groups:
        return None
    side_letters, predictions = letters(sides), sides[0].runs[0].predictions
    columns = max(len(rows) for rows in groups.values())
    height = len(groups) * (2.35 + 0.17 * (1 + len(sides))) + 0.2 * (len(sides) + 1) + 0.4
    with new_figure(path, (max(3.1 * columns, 6.0), height), synthetic) as figure:
        grid = figure.subplots(len(groups), columns, squeeze=False)
        for line, (name, rows) in zip(grid, groups.items(), strict=True):
            for axes in line[len(rows) :]:
                axes.set_visible(False)
            for axes, row in zip(line, sorted(rows, key=lambda row: predictions["label"][row]), strict=False):
                image = predictions.loc[row]
                picture, truth = load(str(image["dataset"]), str(image["image_id"]))
                draw_outlines(axes, picture, _masks(segmenters, row, truth))
                axes.set_title(", ".join(filter(None, map(str, image[["image_id", "label"]]))), fontsize=8.5, loc="left")
                for number, (text, colour) in enumerate(_verdicts(sides, side_letters, row), 1):
                    place: Any = {"xycoords": "axes fraction", "textcoords": "offset points", "annotation_clip": False}
                    axes.annotate(text, (0, 0), (0, -11.5 * number), color=colour, fontsize=8.5, **place)
            line[0].set_ylabel(name, fontsize=12, weight="bold")
        handles = [outline_handle(TRUTH, "-", "truth")]
        for index, side in enumerate(sides):
            name = f"{side_letters[side.name]}: {side.name}"
            colour, style = _outline_style(index) if index in segmenters else ("none", "-")
            handles.append(outline_handle(colour, style, name))
        figure.legend(handles=handles, loc="outside lower left", ncols=1, handlelength=3)
        figure.suptitle(title or "Outlines of every run", x=0.01, ha="left", weight="bold")
    return path


def heat_maps(sides: Sequence[Side], path: Path, count: int = 6, synthetic: bool = False) -> Path | None:
    """Draws images and the Grad-CAM overlays of each side's first run next to one another, one image per row.

    Source: paper 002, figure 7: the image, the map of the baseline, and that of the proposed network.

    Args:
        sides: all sides of the comparison.
        count: maximum number of images, evenly spread over those that all these runs explained.

    Returns None where fewer than two sides have maps, or they have no image in common.
    """
    overlays = {side.name: files for side in sides if (files := explained_images(side.runs[0].path))}
    common = sorted(set.intersection(*map(set, overlays.values()))) if len(overlays) > 1 else []
    if not common:
        return None
    places = np.unique(np.linspace(0, len(common) - 1, min(count, len(common))).round().astype(int))
    side_letters = letters(sides)
    columns = {f"{side_letters[name]}: {_shortened(name)}": files for name, files in overlays.items()}
    originals = {image_id: file.with_name("image.png") for image_id, file in next(iter(overlays.values())).items()}
    if all(originals[common[place]].is_file() for place in places):  # runs of earlier versions have none
        columns = {"image": originals, **columns}
    pictures = [[plt.imread(files[common[place]]) for files in columns.values()] for place in places]
    shape = pictures[0][-1].shape
    with new_figure(path, (3.0 * len(columns), 3.0 * shape[0] / shape[1] * len(places) + 0.4), synthetic) as figure:
        grid = figure.subplots(len(places), len(columns), squeeze=False)
        for line, row in zip(grid, pictures, strict=True):
            for axes, picture in zip(line, row, strict=True):
                axes.imshow(picture)
                axes.set_axis_off()
                axes.set_anchor("N")
        for axes, name in zip(grid[0], columns, strict=True):
            axes.set_title(name, fontsize=9, loc="left")
    return path


def _verdicts(sides: Sequence[Side], side_letters: Mapping[str, str], row: int) -> Iterator[tuple[str, str]]:
    """Yields a line of every side on one image, with its colour: the DSC, and the most probable class, right or wrong.

    The probabilities of several runs are averaged.
    """
    for side in sides:
        values = side.predictions.loc[row]
        texts, colour = [f"DSC {values['dsc']:.3f}"] if "dsc" in values else [], INK
        if "predicted" in values:
            classes = side.runs[0].classes
            probabilities = values[[f"probability_{name}" for name in classes]].to_numpy(float)
            predicted = classes[int(probabilities.argmax())]
            texts.append(f"{predicted} {probabilities.max():.2f}")
            if values["label"]:
                is_right = predicted == values["label"]
                texts[-1] += " \N{CHECK MARK}" if is_right else " \N{BALLOT X} wrong"
                colour = GREEN if is_right else RED
        if texts:
            yield f"{side_letters[side.name]}: {', '.join(texts)}", colour


def _masks(sides: Mapping[int, Side], row: int, truth: np.ndarray) -> list[tuple[np.ndarray, str, str]]:
    """Returns the true mask and those of all runs, with colour and line style."""
    masks = [(truth, TRUTH, "-")]
    for index, side in sides.items():
        for run in side.runs:
            mask = run.mask(row)
            if mask is not None and mask.shape == truth.shape:
                masks.append((mask, *_outline_style(index)))
    return masks


def _outline_style(index: int) -> tuple[str, str]:
    return OUTLINES[index % len(OUTLINES)], LINE_STYLES[index % len(LINE_STYLES)]


def draw_figures(comparison: Comparison, folder: Path, load: LoadOriginal | None) -> list[Picture]:
    """Draws all figures of a comparison into a folder and returns them with their captions.

    Args:
        comparison: the comparison.
        folder: where the files go.
        load: reads an image and its true mask; None skips the outlines.
    """
    sides, synthetic, title = comparison.sides, comparison.synthetic, split_label(comparison.split)
    rows = headline(comparison)
    tables = {_in_lines(side.name): side.predictions for side in sides}
    boxes = {name: table for name, table in tables.items() if "dsc" in table and table["dsc"].notna().any()}
    classes = next((side.runs[0].classes for side in sides if "predicted" in side.runs[0].predictions), None)
    pictures = [
        (
            differences(comparison, rows, folder / "differences.png", synthetic),
            "Differences with their 95 % intervals: paired bootstrap on the same images.",
        ),
        (
            segmentation_box_plots(boxes, folder / "box_plots.png", synthetic=synthetic) if len(boxes) > 1 else None,
            "Segmentation scores of every image" + (", averaged over each side's runs." if _several(comparison) else "."),
        ),
        (
            curves(sides, classes, folder / "curves.png", title, synthetic) if classes else None,
            "Curves of every run on the same images" + ("; a thin line for each run of a side." if _several(comparison) else "."),
        ),
        (
            outlines(sides, load, folder / "outlines.png", title=f"{title}: outlines", synthetic=synthetic) if load else None,
            "Outlines of every run and the truth, and the class of every run with its probability (the mean over the runs of a "
            "side): images on whose DSC the runs differ most, and typical ones.",
        ),
        (
            heat_maps(sides, folder / "grad_cam.png", synthetic=synthetic),
            "Images and Grad-CAM of the predicted class, by the first run of each side.",
        ),
        (
            disagreements(
                sides,
                comparison.reference,
                classes,
                lambda dataset, image_id: load(dataset, image_id)[0],
                folder / "disagreements.png",
                title=f"{title}: images that only one run classifies correctly",
                synthetic=synthetic,
            )
            if load and classes
            else None,
            "Images that only one of two runs classifies correctly, with the probability of each run's predicted class.",
        ),
        (
            embedding_comparison(sides, comparison.split, classes, folder / "embeddings.png", synthetic=synthetic)
            if classes
            else None,
            "Features before each classifier, by the first run of each side. A higher silhouette means tighter classes.",
        ),
    ]
    return [Picture(path, caption) for path, caption in pictures if path]


def _several(comparison: Comparison) -> bool:
    return any(len(side.runs) > 1 for side in comparison.sides)


def _in_lines(name: str, length: int = 16) -> str:
    """Breaks a name into lines short enough for the label of a box."""
    lines = [""]
    for word in name.replace("_", "_\0").replace(" ", " \0").replace("-", "-\0").split("\0"):
        if lines[-1] and len(lines[-1]) + len(word) > length:
            lines.append("")
        lines[-1] += word
    return "\n".join(line.strip() for line in lines)
