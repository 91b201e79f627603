"""Runs compared on the same images: differences of every metric with paired bootstrap intervals, seeds averaged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from string import ascii_uppercase
from typing import Any, Literal

import numpy as np
import pandas as pd

from keras_skin.evaluation import segmentation
from keras_skin.evaluation.bootstrap import Statistics, bootstrap
from keras_skin.evaluation.measured_run import MeasuredRun
from keras_skin.evaluation.measures import TaskMeasure, task_measures
from keras_skin.evaluation.report import metric_label
from keras_skin.evaluation.seeds import drawn_runs, mean_of_runs
from keras_skin.experiment.changes import flattened, without_date
from keras_skin.experiment.paper import Published
from keras_skin.registry import UserError
from keras_skin.run_folder import SYNTHETIC_BANNER

LOWER_IS_BETTER = ("hd95_relative",)


@dataclass(frozen=True)
class Side:
    """One or several runs that count as one: several seeds of one experiment are averaged."""

    name: str
    runs: tuple[MeasuredRun, ...]

    @property
    def predictions(self) -> pd.DataFrame:
        """The first run's predictions with every number averaged over the runs, image by image."""
        first = self.runs[0].predictions
        numbers = first.select_dtypes("number").columns
        if len(self.runs) == 1:
            return first
        return first.assign(**{name: sum(run.predictions[name] for run in self.runs) / len(self.runs) for name in numbers})


Verdict = Literal["better", "worse", ""]


@dataclass(frozen=True)
class Row:
    """One metric of all sides.

    Attributes:
        task: `segmentation` or `classification`.
        metric: name, as in metrics.json.
        label: for tables.
        values: per side `{"value", "ci95", "n"}` with `stamp`, None where it has not this metric.
        reference: position of the side that the others are compared with.
        differences: per side minus the reference, likewise; None for the reference.
        published: per side, the number of its paper.
    """

    task: str
    metric: str
    label: str
    values: tuple[dict[str, Any] | None, ...]
    reference: int
    differences: tuple[dict[str, Any] | None, ...]
    published: tuple[Published | None, ...]

    def verdict(self, side: int) -> Verdict:
        """`better` or `worse` than the reference if the interval of the difference excludes 0, else ""."""
        difference = self.differences[side]
        if not difference or not difference["ci95"] or difference["ci95"][0] <= 0 <= difference["ci95"][1]:
            return ""
        lower = self.metric.partition("/")[0].removesuffix(segmentation.MODEL_SIZE) in LOWER_IS_BETTER
        return "better" if (difference["ci95"][0] > 0) != lower else "worse"


@dataclass(frozen=True)
class Comparison:
    """The result of `compare`; `rows` hold the metrics that at least two sides have."""

    split: str
    sides: tuple[Side, ...]
    reference: int
    rows: tuple[Row, ...]
    images: int
    groups: int
    resamples: int
    synthetic: bool
    notes: tuple[str, ...]
    missing: int = 0

    @property
    def banner(self) -> str:
        """Why the numbers of a side mean nothing; "" if they do."""
        if self.synthetic:
            return SYNTHETIC_BANNER
        return next((run.folder.banner for side in self.sides for run in side.runs if run.folder.banner), "")

    def to_json(self) -> dict[str, Any]:
        """For a file: the sides with their runs, and every row."""
        return {
            "split": self.split,
            "synthetic": self.synthetic,
            "images": self.images,
            "groups": self.groups,
            "resamples": self.resamples,
            "sides": [
                {"name": side.name, "runs": [run.path.name for run in side.runs], "seeds": [run.seed for run in side.runs]}
                for side in self.sides
            ],
            "rows": [{**asdict(row), "verdicts": [row.verdict(side) for side in range(len(self.sides))]} for row in self.rows],
            "notes": list(self.notes),
        }


def letters(sides: Sequence[Side]) -> dict[str, str]:
    """`{side's name: a letter}`, for places where names do not fit."""
    return {side.name: ascii_uppercase[index % 26] for index, side in enumerate(sides)}


def group_by_seed(runs: Sequence[MeasuredRun]) -> list[Side]:
    """Runs that differ in nothing but their seed become one side. If all of them are seeds of one experiment, each stays by
    itself: then it is the seeds that are compared."""
    groups: list[list[MeasuredRun]] = []
    for run in runs:
        same = [group for group in groups if all(_same_but_for_the_seed(run, other) for other in group)]
        if same:
            same[0].append(run)
        else:
            groups.append([run])
    return name_sides(groups if len(groups) > 1 else [[run] for run in runs])


def name_sides(groups: Sequence[Sequence[MeasuredRun]]) -> list[Side]:
    """Sides with short names that differ: the folder's name without its date, with it, or the whole path."""
    for naming in (_plain_name, _folder_name, lambda run: str(run.path)):
        names = [naming(group[0]) for group in groups]
        if len(set(names)) == len(names):
            break
    return [
        Side(f"{name} ({len(group)} runs)" if len(group) > 1 else name, tuple(group))
        for name, group in zip(names, groups, strict=True)
    ]


def differing_settings(sides: Sequence[Side]) -> dict[str, list[str]]:
    """`{dotted key: its value in each side}` for every setting of the experiments that is not the same in all."""
    flat = [[dict(flattened(run.settings)) for run in side.runs] for side in sides]
    keys = dict.fromkeys(key for side in flat for run in side for key in run)
    table = {key: [", ".join(dict.fromkeys(run.get(key, "-") for run in side)) for side in flat] for key in keys}
    return {key: values for key, values in table.items() if len(set(values)) > 1}


def compare(sides: Sequence[Side], reference: int = 0, resamples: int = 1000, seed: int = 0) -> Comparison:
    """Compares the sides on the images that all of them measured.

    A side's value is the mean over its runs. Intervals are percentile bootstrap, hierarchical and paired: each resample draws
    groups of images (patients or lesions) with replacement, the same for every run, and for each side with several runs as many
    of its runs, with replacement, for each side anew. So a side's interval, and that of a difference, speaks of other images and,
    with several runs, of other trainings. A handful of runs makes it a little too narrow: resampling n runs shows (n - 1) / n of
    their variance.

    Args:
        sides: at least two; their runs have measured the same images (`read_runs`).
        reference: position of the side that is subtracted from the others. For a metric that it has not, the first that has it.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """
    measures = [[task_measures(run.predictions, run.classes) for run in side.runs] for side in sides]
    table = sides[0].runs[0].predictions
    groups = sides[0].runs[0].groups
    rows: list[Row] = []
    for task in ("segmentation", "classification"):
        measured = [index for index in range(len(sides)) if all(task in run for run in measures[index])]
        if len(measured) > 1:
            base = reference if reference in measured else measured[0]
            tasks = {index: [run[task] for run in measures[index]] for index in measured}
            rows += _rows(task, sides, tasks, base, groups, resamples, seed)
    if not rows:
        tasks_of_sides = ", ".join(f"{side.name} has {_tasks(side)}" for side in sides)
        raise UserError(f"These runs have no metric in common: {tasks_of_sides}.")
    synthetic = any(run.folder.synthetic for side in sides for run in side.runs)
    count = int(groups.max()) + 1
    notes = tuple(_notes(sides, rows))
    return Comparison(
        sides[0].runs[0].split,
        tuple(sides),
        reference,
        tuple(rows),
        len(table),
        count,
        resamples,
        synthetic,
        notes,
        max(run.folder.missing_of(run.split) for side in sides for run in side.runs),
    )


def _rows(
    task: str,
    sides: Sequence[Side],
    measures: Mapping[int, Sequence[TaskMeasure]],
    base: int,
    groups: np.ndarray,
    resamples: int,
    seed: int,
) -> Iterator[Row]:
    """The metrics of one task; `measures` holds those of each side's runs."""
    every = [item for items in measures.values() for item in items]
    names = [name for name in every[0].values if sum(_defined(items, name) for items in measures.values()) > 1]
    bases = {name: base if _defined(measures[base], name) else _first(measures, name) for name in names}
    values: dict[str, float] = {}
    counts: dict[str, int] = {}
    for name in names:
        for index, items in measures.items():
            values[f"{index}:{name}"] = float(np.mean([item.values.get(name, np.nan) for item in items]))
            counts[f"{index}:{name}"] = min(item.counts.get(name, 0) for item in items)
        for index in measures:
            values[f"{index}-:{name}"] = values[f"{index}:{name}"] - values[f"{bases[name]}:{name}"]
            counts[f"{index}-:{name}"] = min(counts[f"{index}:{name}"], counts[f"{bases[name]}:{name}"])
    used = every[0].rows
    intervals = bootstrap(_averaged(measures, bases, seed), values, counts, groups[used], resamples, seed)
    for name in names:
        values_of_sides = [intervals.get(f"{index}:{name}") for index in range(len(sides))]
        yield Row(
            task,
            name,
            metric_label(task, name),
            tuple(_with_stamp(value, side, task, name) for value, side in zip(values_of_sides, sides, strict=True)),
            bases[name],
            tuple(intervals.get(f"{index}-:{name}") if index != bases[name] else None for index in range(len(sides))),
            tuple(_published(side, task, name) for side in sides),
        )


def _averaged(measures: Mapping[int, Sequence[TaskMeasure]], bases: Mapping[str, int], seed: int) -> Statistics:
    """Statistics of sides (`0:dsc`) and of their differences (`1-:dsc`), with runs resampled too."""
    random = np.random.default_rng([seed, 1])  # its own generator: the drawn images do not depend on the number of runs

    def statistics(weights: np.ndarray) -> dict[str, np.ndarray]:
        named: dict[str, np.ndarray] = {}
        for index, items in measures.items():
            each = [item.statistics(weights) for item in items]
            times = drawn_runs(len(each), len(weights), random)
            for name in bases:
                stack = np.stack([run.get(name, np.full(len(weights), np.nan)) for run in each])
                named[f"{index}:{name}"] = mean_of_runs(stack, times)
        for name, base in bases.items():
            for index in measures:
                named[f"{index}-:{name}"] = named[f"{index}:{name}"] - named[f"{base}:{name}"]
        return named

    return statistics


def _defined(items: Sequence[TaskMeasure], name: str) -> bool:
    return all(not np.isnan(item.values.get(name, np.nan)) for item in items)


def _first(measures: Mapping[int, Sequence[TaskMeasure]], name: str) -> int:
    return next(index for index, items in measures.items() if _defined(items, name))


def _with_stamp(value: dict[str, Any] | None, side: Side, task: str, metric: str) -> dict[str, Any] | None:
    stamps = dict.fromkeys(stamp for run in side.runs if (stamp := run.stamps.get(task, {}).get(metric)))
    return {**value, "stamp": "; ".join(stamps)} if value and stamps else value


def _published(side: Side, task: str, metric: str) -> Published | None:
    printed = {run.published.get(task, {}).get(metric) for run in side.runs}
    return printed.pop() if len(printed) == 1 else None


def _notes(sides: Sequence[Side], rows: Sequence[Row]) -> Iterator[str]:
    several = [side for side in sides if len(side.runs) > 1]
    for side in several:
        seeds = ", ".join(str(run.seed) for run in side.runs)
        yield f"{side.name}: the mean over its runs (seeds {seeds}); intervals resample images and runs."
        differing = [key for key in differing_settings(name_sides([[run] for run in side.runs])) if key != "train.seed"]
        if differing:
            yield f"The runs of {side.name} differ in more than their seed: {', '.join(differing)}."
    single = [side.name for side in sides if len(side.runs) == 1]
    if single:
        verb = "is a single run" if len(single) == 1 else "are single runs"
        yield f"{', '.join(single)} {verb}: intervals cover other images, not another training."
    for side in sides:
        dry = [run.path.name for run in side.runs if run.folder.options.dry_run]
        if dry:
            yield f"{', '.join(dry)}: a dry run, two batches of everything; its numbers mean nothing."
        changes = side.runs[0].folder.changes
        if changes:
            texts = ", ".join(f"{key} is {text}" for key, text in changes.items())
            yield f"{side.name} is not the experiment of its file: {texts}."
        dropped = side.runs[0].folder.paper.get("dropped")
        if dropped:
            yield f"{side.name}: the published numbers are not shown, because they belong to another experiment: {dropped}."
    uneven = [row.label for row in rows if len({value["n"] for value in row.values if value}) > 1]
    if uneven:
        yield f"Not every side has a value for the same images in {', '.join(uneven[:6])}: each mean is over those it has."
    if any(value and value.get("stamp") for row in rows for value in row.values):
        yield "Stamped numbers are too good: patients or lesions have images on both sides of the split (see the run's report)."


def _tasks(side: Side) -> str:
    names = [task for task, column in (("masks", "dsc"), ("classes", "predicted")) if column in side.runs[0].predictions]
    return " and ".join(names) or "nothing"


def _same_but_for_the_seed(run: MeasuredRun, other: MeasuredRun) -> bool:
    a, b = dict(flattened(run.settings)), dict(flattened(other.settings))
    return a.pop("train.seed", None) != b.pop("train.seed", None) and a == b


def _folder_name(run: MeasuredRun) -> str:
    path = run.path.resolve()
    return f"{path.parent.name}/{path.name}" if path.name.startswith("fold_") else path.name


def _plain_name(run: MeasuredRun) -> str:
    return without_date(_folder_name(run))
