"""Tables of papers: the experiments that stand for their rows, and what the papers claim about them.

    table = load_table("jrl_table_3")
    table.rows[0].experiment_of(seed=0).train.epochs

A table is a JSON file in `experiments/tables`, or one of your own.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveInt, ValidationError, ValidationInfo, field_validator, model_validator

from keras_skin.experiment.changes import TEXTS, differences, why_not_published
from keras_skin.experiment.components import Settings
from keras_skin.experiment.fields import Experiment
from keras_skin.experiment.json_file import read_json
from keras_skin.experiment.loading import UnknownExperiment, invalid, load_experiment, shipped_folder
from keras_skin.experiment.paper import CitedSettings, PaperSettings, Results
from keras_skin.registry import UserError, did_you_mean

Task = Literal["segmentation", "classification"]
SCHEMA = "schema.json"


class BudgetSettings(Settings):
    """A shorter training than the experiment's: replaces `train.epochs` and `train.steps_per_epoch`."""

    epochs: PositiveInt | None = None
    steps_per_epoch: PositiveInt | None = None

    @model_validator(mode="after")
    def _check_keys(self) -> BudgetSettings:
        if self.epochs is None and self.steps_per_epoch is None:
            raise ValueError('set "epochs", "steps_per_epoch" or both, or leave the budget out')
        return self


class ProtocolSettings(Settings):
    """How a row is repeated under its paper's image-level protocol. `experiment` null is the row's; `set` is laid over the row's
    `set`; `split` is the measured split that stands for the table's first split (null: the same)."""

    experiment: str | None = None
    overrides: dict[str, Any] = Field({}, alias="set")
    split: str | None = None


class PrintedSettings(Settings):
    """What a paper prints for a row without an experiment file of its own. `set` are the overrides that make the row's
    experiment that of the paper; `row`, `results` and `cited` are as in an experiment's `paper` block."""

    overrides: dict[str, Any] = Field({}, alias="set")
    row: str
    results: Results = Field({})
    cited: list[CitedSettings] = Field([])


class TableRow(Settings):
    """One row: an experiment with the overrides of `set` (dotted key: value), trained with `seeds` seeds. `published` names the
    experiment file whose `paper` block holds the row's printed numbers and whose settings are the paper's (null: `experiment`);
    `printed` gives the numbers and the settings of a row that has no such file.
    """

    label: str = Field(min_length=1)
    experiment: str
    published: str | None = None
    printed: PrintedSettings | None = None
    overrides: dict[str, Any] = Field({}, alias="set")
    seeds: PositiveInt = 1
    budget: BudgetSettings | None = None
    paper_protocol: ProtocolSettings | None = None

    @property
    def slug(self) -> str:
        """The label as part of a folder's name."""
        return slug(self.label)

    def experiment_of(self, seed: int, paper_protocol: bool = False) -> Experiment:
        """The experiment of one run.

        Args:
            seed: added to the experiment's own `train.seed`.
            paper_protocol: whether the row is repeated under the paper's protocol; only if it names one.

        Raises:
            UserError: if the file does not exist or an override is invalid.
        """
        name, values = self.experiment, dict(self.overrides)
        if paper_protocol and self.paper_protocol is not None:
            name = self.paper_protocol.experiment or name
            values |= self.paper_protocol.overrides
        if self.budget is not None:
            values |= {f"train.{key}": value for key, value in self.budget.model_dump(exclude_none=True).items()}
        experiment = load_experiment(name, _texts(values))
        if self.printed is not None:
            experiment = self._as_printed(experiment)
        train = experiment.train.model_copy(update={"seed": experiment.train.seed + seed})
        return experiment.model_copy(update={"train": train})

    @property
    def paper_experiment(self) -> Experiment:
        """The experiment that the printed numbers belong to: a file as it is, or that of `printed`."""
        if self.printed is None:
            return load_experiment(self.published or self.experiment)
        experiment, file = load_experiment(self.experiment, _texts(self.printed.overrides)), load_experiment(self.experiment)
        assert file.paper is not None
        numbers = {"row": self.printed.row, "results": self.printed.results, "cited": self.printed.cited}
        paper = PaperSettings(citation=file.paper.citation, doi=file.paper.doi, notes=file.paper.notes, **numbers)
        return experiment.model_copy(update={"title": f"{self.label}: {file.title}", "changes": {}, "paper": paper})

    def _as_printed(self, experiment: Experiment) -> Experiment:
        """The experiment with the title and the numbers of the paper's one; its changes are those from that one."""
        printed = self.paper_experiment
        settings, paper_settings = (json.loads(item.to_json()) for item in (experiment, printed))
        reason = why_not_published(settings, paper_settings)
        changes = {key: before for key, (_, before) in differences(settings, paper_settings, TEXTS).items()}
        assert printed.paper is not None
        paper = printed.paper.without_numbers(reason) if reason else printed.paper
        return experiment.model_copy(update={"title": printed.title, "changes": changes, "paper": paper})

    @model_validator(mode="after")
    def _check_experiments(self) -> TableRow:
        problems = [text for read in (lambda: self.experiment_of(0), lambda: self.paper_experiment) if (text := _problem(read))]
        if self.paper_protocol is not None and not problems:
            problem = _problem(lambda: self.experiment_of(0, paper_protocol=True))
            if problem:
                problems.append(f"paper_protocol: {problem}")
            elif self.experiment_of(0, paper_protocol=True).split.protocol != "paper":
                problems.append("paper_protocol: split.protocol of its experiment is 'grouped', expected 'paper'")
        if problems:
            raise ValueError("; ".join(dict.fromkeys(problems)))
        return self


class Claim(Settings):
    """What a paper states: the row `better` has a better `metric` of `task` than the row `than`. `split` null is the
    first of the table's splits that both rows measured."""

    text: str
    task: Task
    metric: str
    better: str
    than: str
    split: str | None = None


class MatrixMethod(Settings):
    """A method of a matrix: the overrides of `set`, and for each column of the matrix the printed numbers, in the order of the
    matrix's `metrics` ([] if none are printed), or a row's keys where an experiment file holds them. `source` is the publication
    that the numbers are cited from (null: measured by the authors of the table)."""

    overrides: dict[str, Any] = Field({}, alias="set")
    source: str | None = None
    cells: dict[str, list[float] | dict[str, Any]]


class Matrix(Settings):
    """Rows for every method and column, labelled "method, column": the `experiment` with the method's and the column's `set`.
    The printed numbers are those of `task` and `metrics` on the table's first split; `row` is where they are printed."""

    experiment: str
    row: str
    task: Task
    metrics: list[str]
    columns: dict[str, dict[str, Any]]
    methods: dict[str, MatrixMethod]

    @model_validator(mode="after")
    def _check_cells(self) -> Matrix:
        problems = []
        for name, method in self.methods.items():
            unknown = [column for column in method.cells if column not in self.columns]
            problems += [
                f"{name}: there is no column '{column}'.{did_you_mean(column, self.columns)} Columns: {', '.join(self.columns)}"
                for column in unknown
            ]
            problems += [
                f"{name}, {column}: {len(cell)} numbers, expected {len(self.metrics)}: {', '.join(self.metrics)}"
                for column, cell in method.cells.items()
                if isinstance(cell, list) and len(cell) not in (0, len(self.metrics))
            ]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def rows(self, split: str) -> list[dict[str, Any]]:
        """The rows as values of `TableRow`; `split` is that of the printed numbers."""
        return [
            {"label": cell_label(name, column), **(cell if isinstance(cell, dict) else self._printed(name, column, cell, split))}
            for name, method in self.methods.items()
            for column, cell in method.cells.items()
        ]

    def _printed(self, name: str, column: str, numbers: list[float], split: str) -> dict[str, Any]:
        method = self.methods[name]
        overrides = {**method.overrides, **self.columns[column]}
        results = {split: {self.task: dict(zip(self.metrics, numbers, strict=True))}} if numbers else {}
        printed: dict[str, Any] = {"set": overrides, "row": f"{self.row}, {cell_label(name, column)}"}
        if method.source is None:
            printed["results"] = results
        else:
            printed["cited"] = [
                {"method": cell_label(name, column), "source": method.source, "rebuilt": True, "results": results}
            ]
        return {"experiment": self.experiment, "set": overrides, "printed": printed}


def cell_label(method: str, column: str) -> str:
    """The label of a cell of a matrix."""
    return f"{method}, {column}"


class PaperTable(Settings):
    """A table of a paper: its rows, the `splits` that are compared, the `metrics` that are shown, and the paper's claims. `set`
    are overrides of all rows; a row's own `set` comes after them. `matrix` adds a row for each of its cells."""

    schema_file: str = Field(SCHEMA, alias="$schema", description="For editors: path of the JSON Schema.")
    title: str
    paper: str
    description: str = ""
    splits: list[str] = Field(["test"], min_length=1)
    metrics: dict[Task, list[str]] = Field(min_length=1)
    overrides: dict[str, Any] = Field({}, alias="set")
    matrix: Matrix | None = None
    rows: list[TableRow] = Field([], validate_default=True)
    claims: list[Claim] = Field([])

    def row(self, label: str) -> TableRow:
        """The row of this label."""
        return next(row for row in self.rows if row.label == label)

    @field_validator("rows", mode="before")
    @classmethod
    def _add_cells_and_overrides(cls, rows: Any, info: ValidationInfo) -> Any:
        """Adds the rows of the matrix, and lays each row's `set` over the table's."""
        if not isinstance(rows, list):
            return rows
        matrix, splits = info.data.get("matrix"), info.data.get("splits")
        if matrix is not None and splits:
            rows = [*rows, *matrix.rows(splits[0])]
        common = info.data.get("overrides")
        if not common:
            return rows
        return [
            {**row, "set": {**common, **row.get("set", {})}}
            if isinstance(row, dict) and isinstance(row.get("set", {}), dict)
            else row
            for row in rows
        ]

    @field_validator("rows")
    @classmethod
    def _check_labels(cls, rows: list[TableRow], info: ValidationInfo) -> list[TableRow]:
        if not rows and info.data.get("matrix", "invalid") is None:
            raise ValueError("a table needs rows or a matrix")
        slugs = [row.slug for row in rows]
        repeats = sorted({row.label for row in rows if slugs.count(row.slug) > 1})
        if repeats:
            raise ValueError(f"labels must differ in more than punctuation: {', '.join(repeats)}")
        return rows

    @field_validator("metrics")
    @classmethod
    def _check_metrics(cls, metrics: dict[Task, list[str]], info: ValidationInfo) -> dict[Task, list[str]]:
        problems = [text for task, names in metrics.items() for name in names if (text := _unknown_metric(task, name, info))]
        if problems:
            raise ValueError("; ".join(problems))
        return metrics

    @field_validator("claims")
    @classmethod
    def _check_claims(cls, claims: list[Claim], info: ValidationInfo) -> list[Claim]:
        labels = (info.context or {}).get("labels", [])
        splits = info.data.get("splits", [])
        problems = []
        for claim in claims:
            for label in (claim.better, claim.than):
                if label not in labels:
                    problems.append(f"there is no row '{label}'.{did_you_mean(label, labels)} Rows: {', '.join(labels)}")
            if claim.split is not None and splits and claim.split not in splits:
                problems.append(f"the split '{claim.split}' is not among the table's: {', '.join(splits)}")
            problems.append(_unknown_metric(claim.task, claim.metric, info))
        if any(problems):
            raise ValueError("; ".join(dict.fromkeys(filter(None, problems))))
        return claims


def slug(text: str) -> str:
    """A text in lower-case letters, digits and hyphens; a plus sign is written out."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower().replace("+", " plus ")).strip("-")


def shipped_tables() -> list[str]:
    """Names of the tables that come with the package."""
    folder = shipped_folder().joinpath("tables")
    return sorted(item.name[:-5] for item in folder.iterdir() if item.name.endswith(".json") and item.name != SCHEMA)


def table_titles() -> dict[str, str]:
    """The titles of the shipped tables; their experiments are not read."""
    return {name: read_json(_locate(name))["title"] for name in shipped_tables()}


def load_table(source: str | os.PathLike[str], metrics: Mapping[str, Collection[str]] | None = None) -> PaperTable:
    """Reads and validates a table.

    Args:
        source: path of a JSON file, or the bare name of a shipped table.
        metrics: the known metrics of each task; null checks none.

    Raises:
        UserError: with every problem: its JSON path, the value, and the nearest valid name.
    """
    path = _locate(source)
    values = read_json(path)
    try:
        return PaperTable.model_validate(values, context={"labels": _labels(values), "metrics": metrics})
    except ValidationError as error:
        raise invalid(error, str(path), "table", PaperTable) from None


def table_schema() -> dict[str, Any]:
    """The JSON Schema of a table, for editors."""
    return {**PaperTable.model_json_schema(by_alias=True), "title": "keras_skin table"}


def _locate(source: str | os.PathLike[str]) -> Any:
    path = Path(source)
    if path.is_file():
        return path
    name, names = path.name.removesuffix(".json"), shipped_tables()
    if path.name == str(source) and name in names:
        return shipped_folder().joinpath("tables", f"{name}.json")
    raise UserError(f"There is no table '{source}'.{did_you_mean(name, names)}\nShipped tables: {', '.join(names)}.")


def _labels(values: Mapping[str, Any]) -> list[str]:
    """The labels of all rows and cells of a file that may be invalid."""
    rows, matrix = values.get("rows"), values.get("matrix")
    methods = matrix.get("methods") if isinstance(matrix, dict) else None
    cells = [
        cell_label(name, column)
        for name, method in (methods.items() if isinstance(methods, dict) else ())
        if isinstance(method, dict)
        for column in method.get("cells") or ()
    ]
    return [*(str(row.get("label")) for row in (rows if isinstance(rows, list) else ()) if isinstance(row, dict)), *cells]


def _texts(overrides: Mapping[str, Any]) -> list[str]:
    """Overrides as `load_experiment` takes them."""
    return [f"{key}={json.dumps(value)}" for key, value in overrides.items()]


def _problem(read: Callable[[], Experiment]) -> str:
    """Why an experiment of a row cannot be read, on one line; "" if it can."""
    try:
        read()
    except UnknownExperiment as error:
        return str(error).splitlines()[0]
    except UserError as error:
        return "; ".join(line.strip().removeprefix("- ") for line in str(error).splitlines()[1:]) or str(error)
    return ""


def _unknown_metric(task: str, metric: str, info: ValidationInfo) -> str:
    """A sentence if the metric is none of the task's; `tpr/MEL` is the recall of a class."""
    metrics = (info.context or {}).get("metrics")
    if metrics is None or metric.partition("/")[0] in metrics[task]:
        return ""
    return f"there is no metric '{metric}' of {task}.{did_you_mean(metric, metrics[task])} Known: {', '.join(metrics[task])}"
