"""A finished run as a comparison needs it, read from the files of its folder; no model is built, TensorFlow is not imported."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from keras_skin.evaluation import segmentation
from keras_skin.registry import UserError, did_you_mean

TEXTS = ("image_id", "dataset", "split", "label", "predicted", "group_id", "fold")
KEY = ["dataset", "image_id"]
NAMED = 5
"""Images that a message names before it only counts them."""


@dataclass(frozen=True)
class MeasuredRun:
    """One part of one finished run.

    Attributes:
        path: the run's folder.
        experiment: experiment.json.
        told: run.json.
        split: the part.
        predictions: rows of predictions.csv that belong to it, sorted by data set and image, with their `group_id`.
        classes: labels in the order of the model's outputs.
        stamps: `{task: {metric: words of warning}}`, see `evaluate.stamped`.
    """

    path: Path
    experiment: Mapping[str, Any]
    told: Mapping[str, Any]
    split: str
    predictions: pd.DataFrame
    classes: tuple[str, ...]
    stamps: Mapping[str, Mapping[str, str]]

    @property
    def synthetic(self) -> bool:
        """Whether its images were rendered for a demo."""
        return bool(self.told.get("demo")) or (self.path / "SYNTHETIC.txt").is_file()

    @property
    def seed(self) -> int:
        """Of its training."""
        return int(self.experiment["train"]["seed"])

    @property
    def published(self) -> Mapping[str, Mapping[str, float]]:
        """`{task: {metric: value}}` of its paper for this part."""
        return ((self.experiment.get("paper") or {}).get("results") or {}).get(self.split) or {}

    @property
    def data_dir(self) -> Path | None:
        """Where its data sets lay."""
        if self.told.get("demo"):
            folder = self.path if (self.path / "demo_data").is_dir() else self.path.parent  # a fold's lie beside it
            return folder / "demo_data"
        return Path(self.told["data_dir"]) if self.told.get("data_dir") else None

    def mask(self, row: int) -> np.ndarray | None:
        """(H, W) bool, the predicted mask of the image in this row of `predictions`; None where there is no file."""
        image = self.predictions.iloc[row]
        folder = self.path / f"fold_{image['fold']}" if image.get("fold") else self.path
        file = folder / "masks" / self.split / f"{image['image_id']}.png"
        if not file.is_file():
            return None
        with Image.open(file) as opened:
            return np.asarray(opened.convert("L")) > 127


def explained_images(path: Path) -> dict[str, Path]:
    """`{image id: its overlay}` of the Grad-CAM of the predicted class that a run drew on validation images."""
    try:
        table = pd.read_csv(path / "predictions.csv", dtype=str, keep_default_na=False)
    except OSError:
        return {}
    if "predicted" not in table:
        return {}
    table = table[table["split"] == "validation"]
    files = {
        image_id: path / "explain" / image_id / f"grad_cam_{predicted}.png"
        for image_id, predicted in zip(table["image_id"], table["predicted"], strict=True)
    }
    return {image_id: file for image_id, file in files.items() if file.is_file()}


def read_runs(paths: Sequence[Path], split: str) -> list[MeasuredRun]:
    """Reads one part of several runs, which must have measured the same images.

    Args:
        paths: folders of finished runs, or of one fold of a cross-validation.
        split: `test`, `validation` or `external/<name>`.

    Raises:
        UserError: naming every folder that is no finished run of its own, or whose images are not those of the first.
    """
    runs, problems, seen = [], [], dict[Path, Path]()
    for path in paths:
        before = seen.get(path.resolve())
        if before:
            problems.append(f"'{path}' is given twice" + (f" (also as '{before}')." if before != path else "."))
            continue
        seen[path.resolve()] = path
        try:
            runs.append(_read_run(path, split))
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError("\n".join(dict.fromkeys(problems)))
    if len(runs) < 2:
        raise UserError("A comparison needs at least two runs; give the folders of finished runs of the same test images.")
    for run in runs[1:]:
        problems += _differences(runs[0], run)
    if problems:
        raise UserError(
            f"These runs cannot be compared on '{split}': what they measured is not the same.\n"
            + "\n".join(f"  - {problem}" for problem in problems)
        )
    return runs


def _read_run(path: Path, split: str) -> MeasuredRun:
    path = path.expanduser()
    if not (path / "experiment.json").is_file() or not (path / "run.json").is_file():
        there = sorted(item.name for item in path.iterdir())[:8] if path.is_dir() else None
        found = f"It holds: {', '.join(there) or 'nothing'}." if there is not None else "It does not exist."
        raise UserError(f"'{path}' is not a run folder: it has no experiment.json and run.json. {found}")
    told = _read_json(path / "run.json")
    needed = [name for name in ("metrics.json", "predictions.csv", "splits.csv") if not (path / name).is_file()]
    if not told.get("finished") or needed:
        raise UserError(f"The run in '{path}' has not finished. Continue it: python -m keras_skin.run --resume {path}")
    predictions = _read_table(path / "predictions.csv", ("image_id", "dataset", "split", "label"))
    parts = list(dict.fromkeys(predictions["split"]))
    if split not in parts:
        raise UserError(f"The run in '{path}' measured no '{split}'.{did_you_mean(split, parts)} It has {', '.join(parts)}.")
    folds = path / "fold_1" / "run.json"
    return MeasuredRun(
        path,
        _read_json(path / "experiment.json"),
        told,
        split,
        _with_groups(predictions[predictions["split"] == split], path / "splits.csv"),
        tuple(_read_json(folds)["classes"] if "classes" not in told and folds.is_file() else told["classes"]),
        {
            task: {metric: value["stamp"] for metric, value in values.items() if value.get("stamp")}
            for task, values in _read_json(path / "metrics.json").get(split, {}).items()
        },
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON: {error}.") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected a JSON object, found a {type(values).__name__}.")
    return values


def _read_table(path: Path, needed: Iterable[str]) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}.") from error
    absent = [column for column in needed if column not in table]
    if absent or table.empty:
        raise UserError(f"{path} has no {'column ' + ', '.join(absent) if absent else 'rows'}; is this the file of a run?")
    numbers = [str(column) for column in table if column not in TEXTS]
    try:
        # Python's own reading of floats: a value comes back with the very bits that were written
        return table.assign(**{column: table[column].replace("", "nan").astype(float) for column in numbers})
    except ValueError as error:
        raise UserError(f"{path} holds a text where a number belongs: {error}.") from error


def _with_groups(predictions: pd.DataFrame, splits: Path) -> pd.DataFrame:
    table = pd.read_csv(splits, dtype=str, keep_default_na=False)[[*KEY, "group_id"]].drop_duplicates(KEY)
    joined = predictions.drop(columns="group_id", errors="ignore").merge(table, on=KEY, how="left", validate="many_to_one")
    if joined["group_id"].isna().any() or joined.duplicated(KEY).any():
        raise UserError(f"{splits} and predictions.csv beside it do not list the same images once each.")
    return joined.sort_values(KEY, ignore_index=True)


def _differences(first: MeasuredRun, other: MeasuredRun) -> list[str]:
    """What makes a comparison of the two meaningless, a sentence each."""
    a, b = first.predictions, other.predictions
    both = f"'{first.path}' and '{other.path}'"
    problems = []
    if first.synthetic != other.synthetic:
        drawn, real = (first, other) if first.synthetic else (other, first)
        problems.append(f"'{drawn.path}' is SYNTHETIC (a demo on rendered images), '{real.path}' is not.")
    if set(a["dataset"]) != set(b["dataset"]):
        problems.append(
            f"{both}: the data set is {_listed(set(a['dataset']))} in the first, {_listed(set(b['dataset']))} in the second."
        )
    ids, others = set(a["image_id"]), set(b["image_id"])
    for run, alone in ((first, ids - others), (other, others - ids)):
        if alone:
            problems.append(f"{both}: {_counted(len(alone), 'image')} only in '{run.path}': {_listed(alone)}.")
    if problems or len(a) != len(b) or not a[KEY].equals(b[KEY]):
        return problems or [f"{both}: the images belong to different data sets."]
    for column, words in (("label", "another label"), ("group_id", "another patient or lesion (group)")):
        differs = a[column] != b[column]
        if differs.any():
            problems.append(f"{both}: {_counted(differs.sum(), 'image')} with {words}: {_listed(a['image_id'][differs])}.")
    return problems + _different_pictures(first, other, both)


def _different_pictures(first: MeasuredRun, other: MeasuredRun, both: str) -> list[str]:
    a, b, problems = first.predictions, other.predictions, []
    if set(segmentation.COUNTS) <= set(a) & set(b):
        lesion = a["tp"] + a["fn"] != b["tp"] + b["fn"]
        differs = lesion | (a["fp"] + a["tn"] != b["fp"] + b["tn"])
        differs &= a["tp"].notna() | b["tp"].notna()
        if differs.any():
            problems.append(
                f"{both}: {_counted(differs.sum(), 'image')} with another true mask: {_listed(a['image_id'][differs])}."
            )
    if first.told.get("demo") and other.told.get("demo") and first.seed != other.seed:
        problems.append(
            f"{both}: demo images are drawn from train.seed, which is {first.seed} and {other.seed}: the same names stand for "
            "other pictures."
        )
    if "predicted" in a and "predicted" in b and first.classes != other.classes:
        problems.append(
            f"{both}: the classes are {', '.join(first.classes)} in the first, {', '.join(other.classes)} in the second."
        )
    return problems


def _listed(names: Iterable[str]) -> str:
    names = sorted(names)
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
