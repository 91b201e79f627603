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

from keras_skin.experiment.components import Settings
from keras_skin.experiment.fields import Experiment
from keras_skin.experiment.loading import UnknownExperiment, invalid, load_experiment, read_json, shipped_folder
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


class TableRow(Settings):
    """One row: an experiment with the overrides of `set` (dotted key: value), trained with `seeds` seeds. `published` names the
    experiment file whose `paper` block holds the row's printed numbers and whose settings are the paper's (null: `experiment`).
    """

    label: str = Field(min_length=1)
    experiment: str
    published: str | None = None
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
        overrides = [f"{key}={json.dumps(value)}" for key, value in values.items()]
        experiment = load_experiment(name, overrides)
        train = experiment.train.model_copy(update={"seed": experiment.train.seed + seed})
        return experiment.model_copy(update={"train": train})

    @property
    def paper_experiment(self) -> Experiment:
        """The experiment file that holds the printed numbers, as it is."""
        return load_experiment(self.published or self.experiment)

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


class PaperTable(Settings):
    """A table of a paper: its rows, the `splits` that are compared, the `metrics` that are shown, and the paper's claims. `set`
    are overrides of all rows; a row's own `set` comes after them."""

    schema_file: str = Field(SCHEMA, alias="$schema", description="For editors: path of the JSON Schema.")
    title: str
    paper: str
    description: str = ""
    splits: list[str] = Field(["test"], min_length=1)
    metrics: dict[Task, list[str]] = Field(min_length=1)
    overrides: dict[str, Any] = Field({}, alias="set")
    rows: list[TableRow] = Field(min_length=1)
    claims: list[Claim] = Field([])

    def row(self, label: str) -> TableRow:
        """The row of this label."""
        return next(row for row in self.rows if row.label == label)

    @field_validator("rows", mode="before")
    @classmethod
    def _add_overrides(cls, rows: Any, info: ValidationInfo) -> Any:
        """Lays each row's `set` over the table's."""
        common = info.data.get("overrides")
        if not common or not isinstance(rows, list):
            return rows
        return [
            {**row, "set": {**common, **row.get("set", {})}}
            if isinstance(row, dict) and isinstance(row.get("set", {}), dict)
            else row
            for row in rows
        ]

    @field_validator("rows")
    @classmethod
    def _check_labels(cls, rows: list[TableRow]) -> list[TableRow]:
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
    rows = values.get("rows")
    labels = [str(row.get("label")) for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    try:
        return PaperTable.model_validate(values, context={"labels": labels, "metrics": metrics})
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
