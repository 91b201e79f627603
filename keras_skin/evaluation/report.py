"""One self-contained report.html per run, and the table of published beside measured numbers."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from jinja2 import Environment

from keras_skin.evaluation import classification, segmentation
from keras_skin.evaluation.explanations import explanation_rows
from keras_skin.registry import atomic_path
from keras_skin.templates import templates

TASKS = {"segmentation": segmentation.METRICS, "classification": classification.METRICS}
HEADLINE = {
    "segmentation": ("dsc", "iou", "mcc"),
    "classification": ("tpr_weighted", "tnr", "f1_weighted", "tpr", "auc", "balanced_accuracy"),
}
SPLITS = {"validation": "Validation split", "test": "Test split"}
IMAGE_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"}
NOTHING = "-"


class Picture(NamedTuple):
    """An image file and the sentence below it."""

    path: Path
    caption: str


@dataclass(frozen=True)
class ReportContext:
    """Content of a report. Only `title` and `metrics` are required; empty sections are not printed.

    Attributes:
        title: of the experiment.
        metrics: `{split: {task: {metric: {"value", "ci95", "n"}}}}`; a metric's `stamp` is printed beside its value.
        warnings: sentences for the head of the page.
        description: a paragraph below the title.
        synthetic: the images were drawn by a program; shown in a banner.
        summary: facts of the run, name -> value: model, parameters, input size, epochs, seed, duration ...
        data: table of the images: split, data set, number of images, of each class ...
        excluded: table of the excluded images, with reasons.
        notes: sentences about the data: layout, removed leaks, conflicting labels ...
        evaluation_notes: split -> sentences of its `Evaluation.notes`.
        paper: `{"citation", "row", "doi", "results": {split: {task: {metric: fraction}}}, "notes"}`, all but `results` optional.
        figures: pictures of learning and measuring.
        explanations: contact sheets of heat maps and other pictures of explanations.
        explanation_metrics: `{layer or "metadata_shap": {metric: {"value", "ci95", "n"}}}`, metrics as in `explanations.METRICS`.
        explanation_warnings: sentences about claims that the explanations failed; printed as red lines.
        environment: versions and hardware.
        experiment: the resolved experiment.
        commands: what to do with the run, sentence -> shell command: serve, predict, continue.
        citation: how to cite this software and the paper.
    """

    title: str
    metrics: Mapping[str, Any]
    warnings: Sequence[str] = ()
    description: str = ""
    synthetic: bool = False
    summary: Mapping[str, Any] = field(default_factory=dict)
    data: pd.DataFrame | None = None
    excluded: pd.DataFrame | None = None
    notes: Sequence[str] = ()
    evaluation_notes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    paper: Mapping[str, Any] | None = None
    figures: Sequence[Picture] = ()
    explanations: Sequence[Picture] = ()
    explanation_metrics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    explanation_warnings: Sequence[str] = ()
    environment: Mapping[str, Any] = field(default_factory=dict)
    experiment: Mapping[str, Any] = field(default_factory=dict)
    commands: Mapping[str, str] = field(default_factory=dict)
    citation: str = ""


@dataclass(frozen=True)
class ComparisonRow:
    """One metric of one split: published and measured, None where there is none."""

    split: str
    task: str
    metric: str
    label: str
    published: float | None
    measured: float | None
    ci95: tuple[float, float] | None
    n: int | None
    stamp: str = ""

    @property
    def difference(self) -> float | None:
        """Measured minus published."""
        return None if self.published is None or self.measured is None else self.measured - self.published


def metric_label(task: str, metric: str) -> str:
    """The name of a metric in tables, for example `TPR (recall), malignant` for `tpr/malignant`."""
    name, _, of_class = metric.partition("/")
    if of_class:
        plain = segmentation.METRICS.get(name, (name,))[0] if task == "segmentation" else classification.PER_CLASS.get(name, name)
        return f"{plain}, {of_class}"
    plain = name.removesuffix(segmentation.MODEL_SIZE)
    label = TASKS.get(task, {}).get(plain, (plain, ""))[0]
    return label if plain == name else f"{label}, model's size"


def split_label(split: str) -> str:
    """The name of a split in headings."""
    return SPLITS.get(split) or (f"External: {split.removeprefix('external/')}" if split.startswith("external/") else split)


def comparison_rows(paper: Mapping[str, Any] | None, metrics: Mapping[str, Any]) -> list[ComparisonRow]:
    """Published beside measured: the headline metrics of every measured split and all that the paper publishes.

    Args:
        paper: the experiment's `paper` block with `results: {split: {task: {metric: fraction}}}`, or None.
        metrics: `{split: {task: {metric: {"value", "ci95", "n"}}}}`.

    Returns:
        Rows by split (those with published numbers first), task and metric; a published number that was not measured has one too.
    """
    published = (paper or {}).get("results") or {}
    rows = []
    for split in sorted(dict.fromkeys([*metrics, *published]), key=lambda name: name not in published):
        for task, headline in HEADLINE.items():
            measured = metrics.get(split, {}).get(task, {})
            printed = published.get(split, {}).get(task, {})
            for metric in dict.fromkeys([*headline, *printed]):
                if metric in measured or printed.get(metric) is not None:
                    rows.append(_row(split, task, metric, printed.get(metric), measured.get(metric, {})))
    return rows


def _row(split: str, task: str, metric: str, published: float | None, measured: Mapping[str, Any]) -> ComparisonRow:
    interval = measured.get("ci95")
    return ComparisonRow(
        split,
        task,
        metric,
        metric_label(task, metric),
        published,
        measured.get("value"),
        (interval[0], interval[1]) if interval else None,
        measured.get("n"),
        measured.get("stamp", ""),
    )


def format_table(rows: Iterable[ComparisonRow]) -> str:
    """The comparison as lines of plain ASCII text for a terminal."""
    lines: list[tuple[str, ...]] = [("split", "metric", "published", "measured", "95 % interval", "n")]
    before = None
    for row in rows:
        interval = f"{format_value(row.ci95[0])} .. {format_value(row.ci95[1])}" if row.ci95 else NOTHING
        split, count = "" if row.split == before else row.split, NOTHING if row.n is None else str(row.n)
        label = f"{row.label} ({row.stamp})" if row.stamp else row.label
        lines.append((split, label, format_value(row.published), format_value(row.measured), interval, count))
        before = row.split
    if len(lines) == 1:
        return "Nothing was measured."
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    lines.insert(1, tuple("-" * width for width in widths))
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def format_value(value: float | None) -> str:
    """Four decimals, as the papers print percentages with two; a hyphen where there is no value."""
    return NOTHING if value is None or math.isnan(value) else f"{value:.4f}"


def page_templates() -> Environment:
    """The templates of the pages, with their filters; what they print is escaped."""
    environment = templates("keras_skin.evaluation")
    environment.filters |= {
        "number": format_value,
        "split_label": split_label,
        "embedded": _embedded,
        "cell": _cell,
        "column_kinds": _column_kinds,
    }
    return environment


def write_report(path: Path, context: ReportContext) -> None:
    """Writes the report as one HTML file that loads nothing from anywhere.

    Args:
        path: file to write.
        context: its content.

    Raises:
        ValueError: if a picture is neither PNG nor JPEG.
    """
    rows = comparison_rows(context.paper, context.metrics)
    text = (
        page_templates()
        .get_template("report.html.j2")
        .render(
            context=context,
            paper=context.paper or {},
            groups=_by_split(rows),
            scale=_Scale.around(rows),
            tables=list(_metric_tables(context.metrics)),
            explained=list(explanation_rows(context.explanation_metrics)),
            nothing=NOTHING,
            experiment=json.dumps(context.experiment, indent=2, ensure_ascii=False, default=str) if context.experiment else "",
        )
    )
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _by_split(rows: Sequence[ComparisonRow]) -> dict[str, list[ComparisonRow]]:
    return {split: [row for row in rows if row.split == split] for split in dict.fromkeys(row.split for row in rows)}


class _Scale(NamedTuple):
    """The axis of the small interval drawings, in tenths."""

    low: float
    high: float

    @classmethod
    def around(cls, rows: Sequence[ComparisonRow]) -> _Scale:
        values = [value for row in rows for value in (row.published, row.measured, *(row.ci95 or ())) if value is not None]
        return cls(math.floor(min(values, default=0) * 10) / 10, max(1.0, math.ceil(max(values, default=1) * 10) / 10))

    def x(self, value: float) -> float:
        """Position of a value in per cent of the width."""
        return round(100 * (value - self.low) / (self.high - self.low), 2)


def _metric_tables(metrics: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """For each split: masks at both sizes and by true class, classes together, and each class for itself."""
    for split, tasks in metrics.items():
        masks, labels = tasks.get("segmentation", {}), tasks.get("classification", {})
        per_class = _by_class(labels)
        columns = [name for name in classification.PER_CLASS if any(name in values for values in per_class.values())]
        yield {
            "split": split,
            "masks": [
                (*naming, *both)
                for name, naming in segmentation.METRICS.items()
                if any(both := [masks.get(name), masks.get(name + segmentation.MODEL_SIZE)])
            ],
            "labels": [(*naming, labels[name]) for name, naming in classification.METRICS.items() if name in labels],
            "masks_per_class": _by_class(masks),
            "mask_columns": {name: segmentation.METRICS[name][0] for name in segmentation.PER_CLASS},
            "per_class": per_class,
            "columns": {name: classification.PER_CLASS[name] for name in columns},
        }


def _by_class(metrics: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """`{class: {metric: value}}` of those metrics that belong to one class."""
    classes: dict[str, dict[str, Any]] = {}
    for metric, value in metrics.items():
        name, _, of_class = metric.partition("/")
        if of_class:
            classes.setdefault(of_class, {})[name] = value
    return classes


def _embedded(path: Path) -> str:
    """The file as a data: address."""
    suffix = Path(path).suffix.lower()
    if suffix not in IMAGE_TYPES:
        raise ValueError(f"'{path}' cannot be shown in a report: only {', '.join(IMAGE_TYPES)} files can.")
    return f"data:{IMAGE_TYPES[suffix]};base64,{base64.b64encode(Path(path).read_bytes()).decode('ascii')}"


def _column_kinds(table: pd.DataFrame) -> list[str]:
    """The style of each column: numbers are aligned."""
    return ["number" if pd.api.types.is_numeric_dtype(kind) else "text" for kind in table.dtypes]


def _cell(value: Any) -> str:
    """A value of any table as text."""
    if isinstance(value, float):
        return NOTHING if math.isnan(value) else f"{value:,g}" if value.is_integer() else f"{value:g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_cell(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_cell(item) for item in value)
    return str(value)
