"""Figures of explanations: faithfulness of maps against uninformed maps, and SHAP values of clinical fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from keras_skin.figures.style import BLUE, CYCLE, INK, ORANGE, RED, grid_shape, new_figure

_LINES = {"map": (BLUE, "-", "map"), "gaussian": (RED, "--", "Gaussian in the middle"), "random": ("#8A8A8A", ":", "random map")}
_HATCHES = ("", "//", "..", "xx", "\\\\", "++", "--", "oo")
_GREY = "#8A94A0"


def faithfulness_figure(
    table: pd.DataFrame,
    curves: Mapping[str, Mapping[str, np.ndarray]],
    fractions: np.ndarray,
    path: Path,
    title: str = "",
    synthetic: bool = False,
) -> Path:
    """Draws the maps of one layer against a Gaussian in the middle of every picture and against random maps.

    Args:
        table: a row per image with `relevance_inside`, `relevance_inside_gaussian`, and `correct`, NaN where unknown.
        curves: `{"deletion" or "insertion": {"map", "gaussian", "random": (F,) mean score}}`.
        fractions: (F,) share of the pixels that are removed, or inserted.
    """
    masked = table.dropna(subset=["relevance_inside", "relevance_inside_gaussian"])
    panels = 2 + (len(masked) > 0)
    with new_figure(path, (3.9 * panels, 4.1), synthetic) as figure:
        axes = figure.subplots(1, panels, squeeze=False)[0]
        for panel, way, verb in zip(axes, ("deletion", "insertion"), ("removed", "inserted"), strict=False):
            for order, (colour, style, label) in _LINES.items():
                panel.plot(fractions, curves[way][order], style, color=colour, linewidth=2, label=label)
            panel.set(xlabel=f"share of pixels {verb}, most relevant first", ylim=(-0.02, 1.02))
            panel.set_title(way.capitalize(), loc="left", weight="bold", fontsize=9.5)
        axes[0].set_ylabel("mean score of the explained class or mask")
        axes[0].legend(loc="best")
        if len(masked):
            _draw_relevance_inside(axes[2], masked)
        figure.suptitle(title, x=0.01, ha="left", weight="bold")
    return path


def _draw_relevance_inside(axes: Any, table: pd.DataFrame) -> None:
    gaussian, maps, correct = (
        table[name].to_numpy(float) for name in ("relevance_inside_gaussian", "relevance_inside", "correct")
    )
    axes.plot([0, 1], [0, 1], color=_GREY, linewidth=1, linestyle=":")
    for rows, colour, marker, label in (
        (correct == 1, BLUE, "o", "right"),
        (correct == 0, RED, "X", "wrong"),
        (np.isnan(correct), _GREY, "o", ""),
    ):
        if rows.any():
            axes.scatter(gaussian[rows], maps[rows], s=26, color=colour, marker=marker, alpha=0.75, linewidths=0, label=label)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="Gaussian in the middle", ylabel="map")
    axes.set_title("Relevance inside the lesion", loc="left", weight="bold", fontsize=9.5)
    axes.text(0.03, 0.97, "map is better", va="top", fontsize=8.5, color="#3C4450")
    axes.text(0.97, 0.03, "Gaussian is better", ha="right", fontsize=8.5, color="#3C4450")
    if (~np.isnan(correct)).any():
        axes.legend(loc="lower right", bbox_to_anchor=(1.0, 0.08), title="prediction")


def attribution_bars(
    values: np.ndarray, groups: Sequence[str], classes: Sequence[str], path: Path, note: str = "", synthetic: bool = False
) -> Path:
    """Draws the mean strength of each group's SHAP values, stacked by class, the strongest group first.

    Args:
        values: (N, G, K) SHAP values.
        groups: G names.
        classes: K names.
        note: a line below the axis.
    """
    mean = np.abs(values).mean(axis=0)
    order = np.argsort(mean.sum(axis=1), kind="stable")
    with new_figure(path, (8.0, 1.9 + 0.34 * len(groups)), synthetic) as figure:
        axes, start = figure.subplots(), np.zeros(len(groups))
        for index, name in enumerate(classes):
            axes.barh(
                np.arange(len(groups)),
                mean[order, index],
                left=start,
                height=0.7,
                color=CYCLE[index % len(CYCLE)],
                hatch=_HATCHES[index % len(_HATCHES)],
                edgecolor="white",
                linewidth=0,
                label=name,
            )
            start = start + mean[order, index]
        axes.set_yticks(range(len(groups)), [groups[index] for index in order])
        axes.set_xlabel(f"mean |SHAP value| (logits), {len(values)} images" + (f"\n{note}" if note else ""))
        axes.grid(visible=False, axis="y")
        axes.set_title("Mean strength of the contributions", loc="left", weight="bold")
        axes.legend(loc="lower right", title="class")
    return path


def beeswarm(
    values: np.ndarray,
    groups: Sequence[str],
    classes: Sequence[str],
    path: Path,
    ranks: Mapping[str, np.ndarray] | None = None,
    synthetic: bool = False,
) -> Path:
    """Draws every patient's SHAP values, one panel per class; of two classes only the second, because the first mirrors it.

    Args:
        values: (N, G, K).
        groups: G names.
        classes: K names.
        ranks: numeric field -> the patients' values as ranks in 0..1, NaN where unknown. They colour the points; points without
            a rank are grey.
    """
    panels = [1] if len(classes) == 2 else list(range(len(classes)))
    order = np.argsort(np.abs(values).mean(axis=(0, 2)), kind="stable")
    rows, columns = grid_shape(len(panels), 3)
    with new_figure(path, (max(3.6 * columns, 6.4) + 1.4, (1.3 + 0.3 * len(groups)) * rows + 0.5), synthetic) as figure:
        grid = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
        dots = None
        for axes, index in zip(grid, panels, strict=False):
            axes.axvline(0, color=_GREY, linewidth=1)
            for position, group in enumerate(order):
                column = values[:, group, index]
                heights = position + _swarm(column)
                rank = (ranks or {}).get(groups[group], np.full(len(column), np.nan))
                has_rank = ~np.isnan(rank)
                axes.scatter(column[~has_rank], heights[~has_rank], s=14, color=_GREY, alpha=0.75, linewidths=0)
                if has_rank.any():
                    colours: Any = {"c": rank[has_rank], "cmap": "viridis", "vmin": 0, "vmax": 1}
                    dots = axes.scatter(column[has_rank], heights[has_rank], s=14, linewidths=0, **colours)
            axes.set_title(str(classes[index]), loc="left", weight="bold")
            axes.set_xlabel("SHAP value (logit)")
            axes.set_yticks(range(len(groups)), [groups[item] for item in order])
            axes.set_ylim(-0.6, len(groups) - 0.4)
        for axes in grid[len(panels) :]:
            axes.set_visible(False)
        if dots is not None:
            bar = figure.colorbar(dots, ax=list(grid), shrink=0.5, aspect=30, ticks=[0, 1])
            bar.ax.set_yticklabels(["low", "high"])
            bar.set_label("value of a numeric field\n(other fields grey)")
            bar.outline.set_visible(False)
    return path


def _swarm(column: np.ndarray) -> np.ndarray:
    """Returns heights that spread points of similar value, within 0.35 of their row."""
    width = max(float(np.ptp(column)), 1e-9) / 40
    heights = np.zeros(len(column))
    bins = np.round(column / width).astype(int)
    for value in np.unique(bins):
        members = np.flatnonzero(bins == value)
        steps = np.arange(len(members))
        heights[members] = np.where(steps % 2, 1, -1) * ((steps + 1) // 2) * min(0.08, 0.7 / len(members))
    return heights


class _Step(NamedTuple):
    kind: Literal["group", "gap"]
    name: str
    value: float


def waterfall(
    values: np.ndarray,
    names: Sequence[str],
    base: float,
    logit: float,
    path: Path,
    title: Sequence[str] = (),
    max_groups: int = 12,
    synthetic: bool = False,
) -> Path:
    """Draws one patient's logit of one class as a sum of contributions, from the mean of the background to the prediction.

    Args:
        values: (G,) SHAP values.
        names: G names, with the patient's answers: `site = back`.
        base: mean logit of the background.
        logit: the patient's logit.
        title: lines of the heading.
        max_groups: number of groups with their own bar; weaker groups share one.
    """
    order = np.argsort(-np.abs(values), kind="stable")
    steps = [_Step("group", names[index], float(values[index])) for index in order[:max_groups]]
    if len(order) > max_groups:
        steps.append(_Step("group", f"{len(order) - max_groups} other fields", float(values[order[max_groups:]].sum())))
    steps.append(_Step("gap", "not attributed (gap)", logit - base - float(values.sum())))
    edges = base + np.concatenate([[0.0], np.cumsum([step.value for step in steps])])
    with new_figure(path, (7.6, 1.5 + 0.34 * (len(steps) + 2)), synthetic) as figure:
        axes = figure.subplots()
        for row, (step, start, end) in enumerate(zip(steps, edges, edges[1:], strict=False)):
            colour = _GREY if step.kind == "gap" else BLUE if step.value >= 0 else ORANGE
            axes.barh(row, step.value, left=start, height=0.62, color=colour)
            axes.plot([end] * 2, [row - 0.31, row + 1.31], color=_GREY, linewidth=0.8)
            axes.annotate(
                f"{step.value:+.2f}",
                (max(start, end), row),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=9,
            )
        axes.axvline(base, color=_GREY, linewidth=1, linestyle=":")
        axes.plot([logit], [len(steps)], marker="D", color=INK, markersize=6)
        axes.annotate(f"{logit:.2f}", (logit, len(steps)), xytext=(7, 0), textcoords="offset points", va="center", weight="bold")
        axes.set_yticks(range(len(steps) + 1), [*(step.name for step in steps), "this patient"])
        axes.invert_yaxis()
        axes.set_xlabel(f"logit; dotted: {base:.2f}, the mean of the background")
        reach = max(float(np.ptp([*edges, logit])), 1e-6)
        axes.set_xlim(min(*edges, logit) - 0.05 * reach, max(*edges, logit) + 0.14 * reach)
        axes.grid(visible=False, axis="y")
        axes.set_title("\n".join(title), loc="left", weight="bold")
    return path
