"""The measured images of finished runs, as a comparison needs them; TensorFlow is not imported."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from keras_skin.evaluation import segmentation
from keras_skin.evaluation.evaluate import tested_splits
from keras_skin.evaluation.report import published_results
from keras_skin.experiment.paper import Published
from keras_skin.registry import UserError, did_you_mean, unescape_table
from keras_skin.run_folder import EMBEDDINGS, RunFolder

KEY = ["dataset", "image_id"]
NAMED = 5
"""Images that a message names; it counts the others."""


@dataclass(frozen=True)
class MeasuredRun:
    """One split of one finished run.

    Attributes:
        folder: the run.
        split: name of the split.
        predictions: its rows of predictions.csv, sorted by data set and image, with their `group_id`.
        stamps: `{task: {metric: warning}}`, see `evaluate.stamped`.
    """

    folder: RunFolder
    split: str
    predictions: pd.DataFrame
    stamps: Mapping[str, Mapping[str, str]]

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """The resolved experiment as plain values."""
        return self.folder.settings

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Labels in the order of the model's outputs."""
        return self.folder.classes

    @property
    def path(self) -> Path:
        """The run's folder."""
        return self.folder.path

    @property
    def seed(self) -> int:
        """Seed of the training."""
        return int(self.settings["train"]["seed"])

    @property
    def published(self) -> Mapping[str, Mapping[str, Published]]:
        """`{task: {metric: value}}` of the paper for this split."""
        return published_results(self.folder.paper).get(self.split) or {}

    @cached_property
    def groups(self) -> np.ndarray:
        """(N,) number of the patient, lesion or image that each row of `predictions` belongs to."""
        return np.asarray(pd.factorize(self.predictions["dataset"] + "/" + self.predictions["group_id"])[0])

    @cached_property
    def images_sha256(self) -> str:
        """Hash of the measured images, their labels and their groups: equal for runs that can be compared image by image."""
        rows = self.predictions[[*KEY, "label", "group_id"]].itertuples(index=False, name=None)
        return hashlib.sha256("\n".join("\t".join(map(str, row)) for row in rows).encode()).hexdigest()

    def mask(self, row: int) -> np.ndarray | None:
        """(H, W) bool, the predicted mask of the image in this row of `predictions`; None where there is no file."""
        image = self.predictions.iloc[row]
        run = RunFolder(self.path / f"fold_{image['fold']}") if image.get("fold") else self.folder
        file = run.masks(self.split) / f"{image['image_id']}.png"
        if not file.is_file():
            return None
        with Image.open(file) as opened:
            return np.asarray(opened.convert("L")) > 127


@dataclass(frozen=True)
class Embedding:
    """The features (N, D) that a run's classifier takes, of the images of one split."""

    image_ids: tuple[str, ...]
    features: np.ndarray


def read_embedding(path: Path, split: str) -> Embedding | None:
    """The features that a run saved of a split; None if it saved none.

    Raises:
        UserError: if the file is damaged.
    """
    file = path / EMBEDDINGS
    if not file.is_file():
        return None
    try:
        with np.load(file, allow_pickle=False) as arrays:
            if str(arrays["split"]) != split:
                return None
            return Embedding(tuple(map(str, arrays["image_ids"])), arrays["features"].astype(np.float32))
    except (OSError, ValueError, KeyError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise UserError(f"{file} is damaged, or another program wrote it. Restore it from a backup, or run it again.") from error


def explained_images(path: Path) -> dict[str, Path]:
    """`{image id: its overlay}` of the Grad-CAM of the predicted class that a run drew, on validation images if it has any.
    `image.png` in the same folder is the image itself."""
    try:
        table = unescape_table(pd.read_csv(path / "predictions.csv", dtype=str, keep_default_na=False))
    except OSError:
        return {}
    if "predicted" not in table:
        return {}
    table = table[table["split"] == next(iter(tested_splits(table)), "")]
    files = {
        image_id: path / "explain" / image_id / f"grad_cam_{predicted}.png"
        for image_id, predicted in zip(table["image_id"], table["predicted"], strict=True)
    }
    return {image_id: file for image_id, file in files.items() if file.is_file()}


def read_runs(paths: Sequence[Path], split: str) -> list[MeasuredRun]:
    """Reads one split of several runs, which must have measured the same images.

    Args:
        paths: folders of finished runs, or of one fold of a cross-validation.
        split: `test`, `validation` or `external/<name>`.

    Raises:
        UserError: naming every folder that is no finished run or is named twice, or whose images are not those of the first.
    """
    runs, problems, resolved = [], [], dict[Path, Path]()
    for path in paths:
        before = resolved.get(path.resolve())
        if before:
            problems.append(f"'{path}' is given twice" + (f" (also as '{before}')." if before != path else "."))
            continue
        resolved[path.resolve()] = path
        try:
            runs.append(read_run(path, split))
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


def read_run(path: Path, split: str) -> MeasuredRun:
    """Reads one split of a finished run, or of one fold of a cross-validation.

    Raises:
        UserError: if the folder is no finished run, or if it did not measure the split.
    """
    folder = RunFolder.open_finished(path)
    predictions = folder.predictions
    measured = list(dict.fromkeys(predictions["split"]))
    if split not in measured:
        raise UserError(
            f"The run in '{path}' measured no '{split}'.{did_you_mean(split, measured)} It has {', '.join(measured)}."
        )
    groups = folder.splits[[*KEY, "group_id"]].drop_duplicates(KEY)
    predictions = predictions[predictions["split"] == split].drop(columns="group_id", errors="ignore")
    predictions = predictions.merge(groups, on=KEY, how="left", validate="many_to_one")
    if predictions["group_id"].isna().any() or predictions.duplicated(KEY).any():
        raise UserError(f"{folder / 'splits.csv'} and predictions.csv beside it do not list the same images once each.")
    stamps = {
        task: {metric: value["stamp"] for metric, value in values.items() if value.get("stamp")}
        for task, values in folder.metrics.get(split, {}).items()
    }
    return MeasuredRun(folder, split, predictions.sort_values(KEY, ignore_index=True), stamps)


def _differences(first: MeasuredRun, other: MeasuredRun) -> list[str]:
    """Reasons against a comparison of the two, a sentence each."""
    a, b = first.predictions, other.predictions
    both = f"'{first.path}' and '{other.path}'"
    problems = []
    if first.folder.synthetic != other.folder.synthetic:
        drawn, real = (first, other) if first.folder.synthetic else (other, first)
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
    if first.folder.options.demo and other.folder.options.demo and first.seed != other.seed:
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
