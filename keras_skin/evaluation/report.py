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
from keras_skin.experiment.paper import Published
from keras_skin.registry import atomic_path
from keras_skin.templates import templates

TASKS = {"segmentation": segmentation.METRICS, "classification": classification.METRICS}
HEADLINE = {
    "segmentation": ("dsc", "iou", "mcc"),
    "classification": ("tpr_weighted", "tnr", "f1_weighted", "tpr", "auc", "balanced_accuracy"),
}
SPLITS = {"validation": "Validation split", "test": "Test split"}
IMAGE_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"}
EFFICIENCY = {
    "parameters": "Parameters",
    "latency_ms": "Milliseconds per image",
    "training_minutes": "Minutes of training",
    "weights_mb": "Megabytes of weights",
    "footprint_mb": "Megabytes of weights and layer outputs for one image",
}
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
        banner: why no number of the run means anything; stands in red at the top.
        summary: facts of the run, name -> value: model, parameters, input size, epochs, seed, duration ...
        data: table of the images: split, data set, number of images, of each class ...
        excluded: table of the excluded images, with reasons.
        notes: sentences about the data: layout, removed leaks, conflicting labels ...
        evaluation_notes: split -> sentences of its `Evaluation.notes`.
        missing: split -> its images that were not on the disk.
        paper: the experiment's `paper` block, see `PaperSettings`; every key is optional.
        efficiency: what the run measured of `paper.efficiency`.
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
    banner: str = ""
    summary: Mapping[str, Any] = field(default_factory=dict)
    data: pd.DataFrame | None = None
    excluded: pd.DataFrame | None = None
    notes: Sequence[str] = ()
    evaluation_notes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    missing: Mapping[str, int] = field(default_factory=dict)
    paper: Mapping[str, Any] | None = None
    efficiency: Mapping[str, float] = field(default_factory=dict)
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
    """One metric of one split: published (a number or a bound) and measured, None where there is none; `missing` images of the
    split were not on the disk."""

    split: str
    task: str
    metric: str
    label: str
    published: Published | None
    measured: float | None
    ci95: tuple[float, float] | None
    n: int | None
    stamp: str = ""
    missing: int = 0

    @property
    def difference(self) -> float | None:
        """Measured minus published; None for a bound."""
        return difference(self.measured, self.published)

    @property
    def count(self) -> str:
        """The number of images, such as `6 of 200` if not all were on the disk."""
        return NOTHING if self.n is None else f"{self.n} of {self.n + self.missing}" if self.missing else str(self.n)


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


def difference(measured: float | None, published: Published | None) -> float | None:
    """Measured minus published; None if one is missing or only a bound is published."""
    return None if measured is None or published is None or isinstance(published, str) else measured - published


def published_results(paper: Mapping[str, Any] | None) -> dict[str, dict[str, dict[str, Any]]]:
    """What stands beside measured numbers, `{split: {task: {metric: value}}}`: the paper's own results, and those that it cites
    of the method that the experiment rebuilds, as "0.7490 (cited)".

    Args:
        paper: an experiment's `paper` block, or None.
    """
    merged: dict[str, dict[str, dict[str, Any]]] = {}
    cited = [method["results"] for method in (paper or {}).get("cited") or [] if method.get("rebuilt")]
    for results, mark in [*((results, " (cited)") for results in cited), ((paper or {}).get("results") or {}, "")]:
        for split, tasks in results.items():
            for task, values in tasks.items():
                target = merged.setdefault(split, {}).setdefault(task, {})
                target |= {name: f"{format_published(value)}{mark}" if mark else value for name, value in values.items()}
    return merged


def comparison_rows(
    paper: Mapping[str, Any] | None, metrics: Mapping[str, Any], missing: Mapping[str, int] | None = None
) -> list[ComparisonRow]:
    """Published beside measured: the headline metrics of every measured split and all that the paper publishes.

    Args:
        paper: the experiment's `paper` block with `results: {split: {task: {metric: fraction}}}`, or None.
        metrics: `{split: {task: {metric: {"value", "ci95", "n"}}}}`.
        missing: for each split, how many of its images were not on the disk.

    Returns:
        Rows by split (those with published numbers first), task and metric; a published number that was not measured has one too.
    """
    published = published_results(paper)
    rows = []
    for split in sorted(dict.fromkeys([*metrics, *published]), key=lambda name: name not in published):
        counts = [value["n"] for task in HEADLINE for value in metrics.get(split, {}).get(task, {}).values()]
        for task, headline in HEADLINE.items():
            measured = metrics.get(split, {}).get(task, {})
            printed = published.get(split, {}).get(task, {})
            for metric in dict.fromkeys([*headline, *printed]):
                if metric in measured or printed.get(metric) is not None:
                    value = measured.get(metric, {})
                    # a metric of fewer images, such as the recall of one class, lacks an unknown share of the missing ones
                    number = (missing or {}).get(split, 0) if value.get("n") == max(counts, default=0) else 0
                    rows.append(_row(split, task, metric, printed.get(metric), value, number))
    return rows


def _row(
    split: str, task: str, metric: str, published: Published | None, measured: Mapping[str, Any], missing: int
) -> ComparisonRow:
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
        missing,
    )


def other_results(paper: Mapping[str, Any], metrics: Mapping[str, Any]) -> dict[str, list[ComparisonRow]]:
    """The published metrics of each further evaluation of the same experiment, beside the measured ones."""
    evaluations: Mapping[str, Any] = paper.get("other_results") or {}
    return {
        name: [row for row in comparison_rows({"results": results}, metrics) if row.published is not None]
        for name, results in evaluations.items()
    }


def cited_rows(papers: Iterable[Mapping[str, Any]]) -> list[tuple[str, str, str, str, str]]:
    """Method, source, split, metric and value of every number that papers quote from other publications, once each."""
    rows = [
        (method["method"], method["source"], split_label(split), metric_label(task, metric), format_published(value))
        for paper in papers
        for method in paper.get("cited") or []
        for split, tasks in method["results"].items()
        for task, values in tasks.items()
        for metric, value in values.items()
    ]
    return list(dict.fromkeys(rows))


def efficiency_rows(paper: Mapping[str, Any], measured: Mapping[str, float]) -> list[tuple[str, str, str]]:
    """Name, published and measured value of parameters, times and sizes."""
    printed: Mapping[str, Published] = paper.get("efficiency") or {}
    return [
        (label, _plain_number(printed.get(name)), _plain_number(measured.get(name)))
        for name, label in EFFICIENCY.items()
        if name in printed or name in measured
    ]


def _plain_number(value: Published | None) -> str:
    return NOTHING if value is None else value if isinstance(value, str) else f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def format_table(rows: Iterable[ComparisonRow]) -> str:
    """The comparison as lines of plain ASCII text for a terminal."""
    lines: list[tuple[str, ...]] = [("split", "metric", "published", "measured", "95 % interval", "n")]
    before = None
    for row in rows:
        interval = f"{format_value(row.ci95[0])} .. {format_value(row.ci95[1])}" if row.ci95 else NOTHING
        split = "" if row.split == before else row.split
        label = f"{row.label} ({row.stamp})" if row.stamp else row.label
        lines.append((split, label, format_published(row.published), format_value(row.measured), interval, row.count))
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


def format_published(value: Published | None) -> str:
    """As `format_value`; a bound as it is."""
    return value if isinstance(value, str) else format_value(value)


def page_templates() -> Environment:
    """The templates of the pages, with their filters; what they print is escaped."""
    environment = templates("keras_skin.evaluation")
    environment.filters |= {
        "number": format_published,
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
    rows = comparison_rows(context.paper, context.metrics, context.missing)
    paper = context.paper or {}
    text = (
        page_templates()
        .get_template("report.html.j2")
        .render(
            context=context,
            paper=paper,
            others=other_results(paper, context.metrics),
            efficiency=efficiency_rows(paper, context.efficiency),
            cited=cited_rows([paper]),
            published=bool(published_results(paper)),
            groups=_by_split(rows),
            scale=_Scale.around(rows),
            tables=list(_metric_tables(context.metrics)),
            explained=list(explanation_rows(context.explanation_metrics, paper.get("explanations") or {})),
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
        values = [value for row in rows for value in (row.published, row.measured, *(row.ci95 or ())) if isinstance(value, float)]
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
