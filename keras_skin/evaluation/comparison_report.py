"""A comparison of runs as text for the terminal, as files, and as one page that loads nothing from anywhere."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from keras_skin.evaluation.comparison import Comparison, Row, differing_settings, letters
from keras_skin.evaluation.explanations import METRICS
from keras_skin.evaluation.report import (
    EFFICIENCY,
    HEADLINE,
    NOTHING,
    TASKS,
    Picture,
    cited_rows,
    efficiency_rows,
    format_published,
    format_value,
    page_templates,
    split_label,
)
from keras_skin.evaluation.run_report import efficiency
from keras_skin.registry import UserError, atomic_path

CAM_LAYER = "cam_features"
COMPARED = {task: (*metrics, *(("f1_macro",) if task == "classification" else ())) for task, metrics in HEADLINE.items()}
"""The metrics of the first table; the terminal shows only these."""


def headline(comparison: Comparison) -> list[Row]:
    """The rows that stand first: the headline metrics and all that a paper of one of the sides publishes."""
    order = {(task, metric): place for task, metrics in COMPARED.items() for place, metric in enumerate(metrics)}
    chosen = [row for row in comparison.rows if (row.task, row.metric) in order or any(v is not None for v in row.published)]
    tasks = list(TASKS)
    return sorted(chosen, key=lambda row: (tasks.index(row.task), order.get((row.task, row.metric), len(order))))


def format_comparison(comparison: Comparison) -> str:
    """The headline metrics of every side as lines of plain ASCII text; a `*` where the interval of a difference excludes 0."""
    base = comparison.sides[comparison.reference].name
    lines: list[tuple[str, ...]] = [("metric", "run", "measured", "published", "difference", "95 % interval", "", "n")]
    for row in headline(comparison):
        label = row.label
        for index, side in enumerate(comparison.sides):
            value, difference = row.values[index], row.differences[index]
            if value is None:
                continue
            stamp = f" ({value['stamp']})" if value.get("stamp") else ""
            name = f"{side.name} (compared with)" if index == row.reference != comparison.reference else side.name
            lines.append(
                (
                    label,
                    name + stamp,
                    format_value(value["value"]),
                    format_published(row.published[index]),
                    format_difference(difference["value"]) if difference else NOTHING,
                    f"{format_difference(difference['ci95'][0])} .. {format_difference(difference['ci95'][1])}"
                    if difference and difference["ci95"]
                    else NOTHING,
                    {"better": "* better", "worse": "* worse"}.get(row.verdict(index), ""),
                    str(value["n"]),
                )
            )
            label = ""
    if all(line[3] == NOTHING for line in lines[1:]):
        lines = [(*line[:3], *line[4:]) for line in lines]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    lines.insert(1, tuple("-" * width for width in widths))
    text = ["  ".join(_padded(line, widths)).rstrip() for line in lines]
    head = [f"{split_label(comparison.split)}: {counted(comparison)}. Differences: each run minus {base}."]
    if comparison.banner:
        head.append(comparison.banner)
    return "\n".join([*head, "", *text, "", *(f"- {note}" for note in comparison.notes)])


def _padded(line: Sequence[str], widths: Sequence[int]) -> list[str]:
    verdict = len(line) - 2
    return [
        cell.ljust(width) if column < 2 or column == verdict else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(line, widths, strict=True))
    ]


def counted(comparison: Comparison) -> str:
    """The number of compared images and of their groups."""
    listed = f" of {comparison.images + comparison.missing}" if comparison.missing else ""
    groups = "" if comparison.groups == comparison.images else f" of {comparison.groups} patients or lesions"
    return f"{comparison.images}{listed} images{groups}"


def format_difference(value: float) -> str:
    """Four decimals with their sign."""
    return f"{value:+.4f}"


def write_page(path: Path, comparison: Comparison, pictures: Sequence[Picture]) -> None:
    """Writes the comparison as one HTML file.

    Args:
        path: file to write.
        comparison: the comparison.
        pictures: PNG files, embedded.
    """
    rows = headline(comparison)
    rest = [row for row in comparison.rows if row not in rows]
    text = (
        page_templates()
        .get_template("comparison.html.j2")
        .render(
            comparison=comparison,
            runs=sum(len(side.runs) for side in comparison.sides),
            rows=rows,
            tables={"All other metrics": rest} if rest else {},
            letters=letters(comparison.sides),
            published=any(value is not None for row in rows for value in row.published),
            papers=_papers(comparison),
            settings=differing_settings(comparison.sides),
            efficiency=_efficiency(comparison),
            explanations=_explanations(comparison),
            cited=cited_rows(run.folder.paper for side in comparison.sides for run in side.runs),
            pictures=pictures,
            signed=format_difference,
            counted=counted,
            measured=lambda row: [index for index, value in enumerate(row.values) if value],
            nothing=NOTHING,
        )
    )
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def require_new(folder: Path) -> None:
    """Refuses a folder in which something lies already.

    Raises:
        UserError: if the folder is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"--out {folder}: it is there already and is not empty; nothing is overwritten. Name a new folder.")


def write_folder(folder: Path, comparison: Comparison, draw: Callable[[Comparison, Path], Sequence[Picture]]) -> None:
    """Writes comparison.json, comparison.html and figures/ into a new folder.

    Args:
        folder: folder to write; it must not exist or be empty.
        comparison: what to write.
        draw: draws the figures of a comparison into a folder, see `figures.comparison.draw_figures`.

    Raises:
        UserError: if the folder holds something already.
    """
    require_new(folder)
    with atomic_path(folder) as temporary:
        pictures = draw(comparison, temporary / "figures")
        write_page(temporary / "comparison.html", comparison, pictures)
        text = json.dumps(comparison.to_json(), indent=2, allow_nan=False) + "\n"
        (temporary / "comparison.json").write_text(text, encoding="utf-8")


def with_notes(comparison: Comparison, notes: Sequence[str], synthetic: bool) -> Comparison:
    """Adds notes about the images."""
    return replace(comparison, notes=(*comparison.notes, *notes), synthetic=comparison.synthetic or synthetic)


def _efficiency(comparison: Comparison) -> dict[str, list[tuple[str, str]]]:
    """For each measure of size and speed, published and measured by side: the mean over its runs."""
    table: dict[str, list[tuple[str, str]]] = {}
    for index, side in enumerate(comparison.sides):
        runs = [efficiency(run.folder) for run in side.runs]
        means = {name: sum(run[name] for run in runs) / len(runs) for name in EFFICIENCY if all(name in run for run in runs)}
        for label, printed, value in efficiency_rows(side.runs[0].folder.paper, means):
            table.setdefault(label, [(NOTHING, NOTHING)] * len(comparison.sides))[index] = (printed, value)
    return table


def _explanations(comparison: Comparison) -> dict[str, list[str]]:
    """For each measure of the Grad-CAM maps its value with interval and number of images by side: of the side's first run."""
    measured = [side.runs[0].folder.metrics.get("explanations", {}).get(CAM_LAYER, {}) for side in comparison.sides]
    return {
        label: [_explained(values.get(name)) for values in measured]
        for name, (label, _) in METRICS.items()
        if any(name in values for values in measured)
    }


def _explained(value: Mapping[str, Any] | None) -> str:
    if value is None:
        return NOTHING
    interval = f" ({value['ci95'][0]:.3f} to {value['ci95'][1]:.3f})" if value["ci95"] else ""
    return f"{value['value']:.3f}{interval}, n = {value['n']}"


def _papers(comparison: Comparison) -> list[str]:
    """The sources of the published numbers."""
    papers = []
    for side in comparison.sides:
        paper = side.runs[0].folder.paper
        if side.runs[0].published and paper:
            papers.append(f"{side.name}: {paper['citation']}" + (f"; {paper['row']}" if paper.get("row") else ""))
    return papers
