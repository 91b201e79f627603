"""report.html as a function of a run's folder: whatever the page shows is in its files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from typing_extensions import TypedDict

from keras_skin.evaluation.evaluate import tested_splits
from keras_skin.evaluation.report import Picture, ReportContext, write_report
from keras_skin.run_folder import EXPORTS, LATENCY, RunFolder

REPORT = "report.json"
"""Facts, notes and captions that no other file of the run holds."""
FOLD_METRICS = ("dsc", "iou", "accuracy", "f1_weighted", "auc")


class _Report(TypedDict):
    summary: dict[str, str]
    notes: list[str]
    evaluation_notes: dict[str, list[str]]
    figures: dict[str, str]
    explanations: dict[str, str]
    explanation_warnings: list[str]


def write_run_report(folder: RunFolder) -> Path:
    """Writes report.html of a finished run, or of one fold; returns its path.

    Raises:
        UserError: if a file that the report needs is missing or damaged.
    """
    experiment, content = folder.experiment, folder.read_checked(REPORT, _Report)
    metrics = folder.metrics
    explanations = metrics.pop("explanations", {})
    context = ReportContext(
        title=folder.headline,
        metrics=metrics,
        warnings=[*filter(None, [folder.warning]), *content.get("warnings", [])],
        description=experiment.description,
        banner=folder.banner,
        summary=content["summary"] | ({"Changed settings": folder.changes} if folder.changes else {}),
        data=_fold_table(folder) if folder.folds else _data_table(folder),
        excluded=None if folder.folds else folder.excluded,
        notes=content["notes"],
        evaluation_notes=content["evaluation_notes"],
        missing={split: folder.missing_of(split) for split in metrics},
        paper=folder.paper,
        efficiency=efficiency(folder) if folder.paper.get("efficiency") else {},
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


def efficiency(folder: RunFolder) -> dict[str, float]:
    """The size and speed of a finished run, by the keys of `paper.efficiency`, without what was not measured; {} for several
    folds."""
    if folder.folds:
        return {}
    facts = {"parameters": folder.record.get("parameters"), "latency_ms": _latency(folder)}
    facts["training_minutes"] = folder.training_minutes
    facts["footprint_mb"] = folder.record.get("footprint_mb")
    facts["weights_mb"] = folder.best_weights.stat().st_size / 1e6 if folder.best_weights.is_file() else None
    return {name: float(value) for name, value in facts.items() if value is not None}


def _latency(folder: RunFolder) -> float | None:
    """Median time of one image in milliseconds."""
    if not (folder / LATENCY).is_file():
        return None
    measured = {item["batch_size"]: item["median"] for item in folder.read_json(LATENCY)["measured"]}
    return measured.get(1)


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
