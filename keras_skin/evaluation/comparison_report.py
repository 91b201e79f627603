"""A comparison of runs as text for the terminal, as files, and as one page that loads nothing from anywhere."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from keras_skin.evaluation import comparison_figures, figures
from keras_skin.evaluation.comparison import Comparison, Row, differing_settings
from keras_skin.evaluation.report import HEADLINE, NOTHING, TASKS, Picture, format_value, page_templates, split_label
from keras_skin.registry import UserError, atomic_path

COMPARED = {task: (*metrics, *(("f1_macro",) if task == "classification" else ())) for task, metrics in HEADLINE.items()}
"""The metrics that stand first, and alone in the terminal."""


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
            value, found = row.values[index], row.differences[index]
            if value is None:
                continue
            stamp = f" ({value['stamp']})" if value.get("stamp") else ""
            name = f"{side.name} (compared with)" if index == row.reference != comparison.reference else side.name
            lines.append(
                (
                    label,
                    name + stamp,
                    format_value(value["value"]),
                    format_value(row.published[index]),
                    format_difference(found["value"]) if found else NOTHING,
                    f"{format_difference(found['ci95'][0])} .. {format_difference(found['ci95'][1])}"
                    if found and found["ci95"]
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
    if comparison.synthetic:
        head.append("SYNTHETIC data: these numbers say nothing about patients, and cannot be compared with published ones.")
    return "\n".join([*head, "", *text, "", *(f"- {note}" for note in comparison.notes)])


def _padded(line: Sequence[str], widths: Sequence[int]) -> list[str]:
    verdict = len(line) - 2
    return [
        cell.ljust(width) if column < 2 or column == verdict else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(line, widths, strict=True))
    ]


def counted(comparison: Comparison) -> str:
    """How many images were compared, and how many groups of them."""
    if comparison.groups == comparison.images:
        return f"{comparison.images} images"
    return f"{comparison.images} images of {comparison.groups} patients or lesions"


def format_difference(value: float) -> str:
    """Four decimals with their sign."""
    return f"{value:+.4f}"


def draw_figures(comparison: Comparison, folder: Path, load: comparison_figures.LoadOriginal | None) -> list[Picture]:
    """Draws all figures of a comparison into a folder.

    Args:
        comparison: what to draw.
        folder: where to.
        load: reads an image and its true mask; None leaves the outlines out.
    """
    sides, synthetic, title = comparison.sides, comparison.synthetic, split_label(comparison.split)
    rows = headline(comparison)
    tables = {_in_lines(side.name): side.predictions for side in sides}
    boxes = {name: table for name, table in tables.items() if "dsc" in table and table["dsc"].notna().any()}
    classified = [side.runs[0].classes for side in sides if "predicted" in side.runs[0].predictions]
    drawn = [
        (
            comparison_figures.differences(comparison, rows, folder / "differences.png", synthetic),
            "Differences with their 95 % intervals: paired bootstrap on the same images.",
        ),
        (
            figures.segmentation_box_plots(boxes, folder / "box_plots.png", synthetic=synthetic) if len(boxes) > 1 else None,
            "Segmentation scores of every image" + (", averaged over each side's runs." if _several(comparison) else "."),
        ),
        (
            comparison_figures.curves(sides, classified[0], folder / "curves.png", title, synthetic) if classified else None,
            "Curves of every run on the same images" + ("; a thin line for each run of a side." if _several(comparison) else "."),
        ),
        (
            comparison_figures.outlines(sides, load, folder / "outlines.png", title=f"{title}: outlines", synthetic=synthetic)
            if load
            else None,
            "Outlines of every run and the truth: images on whose DSC the runs differ most, and typical ones.",
        ),
        (
            comparison_figures.heat_maps(sides, folder / "grad_cam.png", synthetic=synthetic),
            "Grad-CAM of the predicted class on the same validation images, by the first run of each side.",
        ),
    ]
    return [Picture(path, caption) for path, caption in drawn if path]


def write_page(path: Path, comparison: Comparison, pictures: Sequence[Picture]) -> None:
    """Writes the comparison as one HTML file.

    Args:
        path: file to write.
        comparison: what to tell.
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
            letters=comparison_figures.letters(comparison.sides),
            published=any(value is not None for row in rows for value in row.published),
            papers=_papers(comparison),
            settings=differing_settings(comparison.sides),
            pictures=pictures,
            signed=format_difference,
            counted=counted,
            having=lambda row: [index for index, value in enumerate(row.values) if value],
            nothing=NOTHING,
        )
    )
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def require_new(folder: Path) -> None:
    """Refuses a folder in which something lies already.

    Raises:
        UserError: if there is anything.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"--out {folder}: it is there already and is not empty; nothing is overwritten. Name a new folder.")


def write_folder(folder: Path, comparison: Comparison, load: comparison_figures.LoadOriginal | None) -> None:
    """Writes comparison.json, comparison.html and figures/ into a new folder.

    Raises:
        UserError: if the folder holds something already.
    """
    require_new(folder)
    with atomic_path(folder) as temporary:
        pictures = draw_figures(comparison, temporary / "figures", load)
        write_page(temporary / "comparison.html", comparison, pictures)
        text = json.dumps(comparison.to_json(), indent=2, allow_nan=False) + "\n"
        (temporary / "comparison.json").write_text(text, encoding="utf-8")


def with_notes(comparison: Comparison, notes: Sequence[str], synthetic: bool) -> Comparison:
    """The comparison with what was found out about its images later."""
    return replace(comparison, notes=(*comparison.notes, *notes), synthetic=comparison.synthetic or synthetic)


def _several(comparison: Comparison) -> bool:
    return any(len(side.runs) > 1 for side in comparison.sides)


def _papers(comparison: Comparison) -> list[str]:
    """Where each side's published numbers come from."""
    found = []
    for side in comparison.sides:
        paper = side.runs[0].experiment.get("paper") or {}
        if side.runs[0].published and paper:
            found.append(f"{side.name}: {paper['citation']}" + (f"; {paper['row']}" if paper.get("row") else ""))
    return found


def _in_lines(name: str, length: int = 16) -> str:
    """A name in lines short enough to stand below a box."""
    lines = [""]
    for part in name.replace("_", "_\0").replace(" ", " \0").replace("-", "-\0").split("\0"):
        if lines[-1] and len(lines[-1]) + len(part) > length:
            lines.append("")
        lines[-1] += part
    return "\n".join(line.strip() for line in lines)
