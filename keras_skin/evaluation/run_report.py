"""report.html as a function of a run's folder: whatever the page shows is in its files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from keras_skin.evaluation.evaluate import tested_splits
from keras_skin.evaluation.report import Picture, ReportContext, write_report
from keras_skin.run_folder import EXPORTS, RunFolder

REPORT = "report.json"
"""Facts, notes and captions that no other file of the run holds."""
FOLD_METRICS = ("dsc", "iou", "accuracy", "f1_weighted", "auc")


def write_run_report(folder: RunFolder) -> Path:
    """Writes report.html of a finished run, or of one fold; returns its path.

    Raises:
        UserError: if a file that the report needs is missing or damaged.
    """
    experiment, content = folder.experiment, folder.read_json(REPORT)
    metrics = folder.metrics
    explanations = metrics.pop("explanations", {})
    context = ReportContext(
        title=experiment.title,
        metrics=metrics,
        warnings=[*filter(None, [folder.warning]), *content.get("warnings", [])],
        description=experiment.description,
        synthetic=folder.synthetic,
        summary=content["summary"],
        data=_fold_table(folder) if folder.folds else _data_table(folder),
        excluded=None if folder.folds else folder.excluded,
        notes=content["notes"],
        evaluation_notes=content["evaluation_notes"],
        paper=experiment.paper.model_dump() if experiment.paper else None,
        figures=_pictures(folder, content["figures"]),
        explanations=_pictures(folder, content["explanations"]),
        explanation_metrics=explanations,
        explanation_warnings=content["explanation_warnings"],
        environment=folder.read_json("environment.json"),
        experiment=folder.settings,
        commands={} if folder.folds else _commands(folder),
        citation=experiment.paper.citation if experiment.paper else "",
    )
    path = folder / "report.html"
    write_report(path, context)
    return path


def _pictures(folder: RunFolder, captions: Mapping[str, str]) -> list[Picture]:
    return [Picture(folder / name, caption) for name, caption in captions.items()]


def _data_table(folder: RunFolder) -> pd.DataFrame:
    """Images of each class, split and data set."""
    table = folder.splits
    counts = table.groupby(["split", "dataset", "label"], sort=False).size().unstack(fill_value=0)
    classes = [*folder.classes, *([""] if "" in counts else [])]
    counts = counts.reindex(columns=classes, fill_value=0).rename(columns={"": "no label"})
    order = {split: number for number, split in enumerate(["train", *tested_splits(table)])}
    rows = counts.assign(images=counts.sum(axis=1)).reset_index().rename(columns={"dataset": "data set"})
    return rows.sort_values("split", key=lambda column: column.map(order), kind="stable", ignore_index=True)


def _fold_table(folder: RunFolder) -> pd.DataFrame:
    """The main test metrics of each fold."""
    rows: list[dict[str, Any]] = []
    for number, fold in enumerate(folder.folds, start=1):
        values = {metric: value for task in fold.metrics["test"].values() for metric, value in task.items()}
        shown = {metric: f"{value['value']:.4f}" for metric, value in values.items() if metric in FOLD_METRICS}
        rows.append({"fold": number, **shown})
    return pd.DataFrame(rows)


def _commands(folder: RunFolder) -> dict[str, str]:
    commands = {
        "Run this experiment again": f"python -m keras_skin.run {folder / 'experiment.json'}",
        "Write this report again": f"python -m keras_skin.report {folder.path}",
    }
    if folder.experiment.export.enabled:
        export = folder.path / EXPORTS["float32"] / "1"
        commands["Look at the exported model's signatures"] = f"saved_model_cli show --dir {export} --all"
    return commands
