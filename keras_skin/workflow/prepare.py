"""From the experiment's data block to splits that share no image: read, split, add, exclude, and record all of it."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from keras_skin.data.datasets import readers
from keras_skin.data.datasets.records import MissingData, Records, read_dataset
from keras_skin.data.images.store import ImageStore
from keras_skin.data.metadata import MetadataEncoder
from keras_skin.data.splits.leaks import guard, unite
from keras_skin.data.splits.overlap import add_training, without_fitted
from keras_skin.data.splits.splits import make_splits, straddling_groups
from keras_skin.evaluation.evaluate import tested_splits
from keras_skin.experiment import DatasetSettings, Experiment
from keras_skin.registry import UserError
from keras_skin.training.monitor import LAST
from keras_skin.workflow.clinical import complete_cases, fit_encoder

log = logging.getLogger("keras_skin")

FITTED = ("train", "validation")
EXCLUDED_COLUMNS = ["dataset", "image_id", "file", "reason", "split", "kind"]


@dataclass(frozen=True)
class PreparedData:
    """The images of a run.

    Attributes:
        table: one row per image; `split` is `train`, `validation`, `test` or `external/<name>`; `dataset` says where it
        comes from; `lesion`, where a segmenter is used, is the file of the mask that cuts the lesion out.
        classes: labels in the order of the model's outputs.
        excluded: images that are not used: `dataset, image_id, file, reason, split, kind`.
        notes: sentences for the log and the report.
        metadata: the encoder of clinical metadata, fitted on the training split; None if the experiment uses none.
        store: the image store of the table; None before the model is built, or where images are decoded in every epoch.
        warning: why the numbers of the validation and test splits are too good; "" if they are not.
    """

    table: pd.DataFrame
    classes: tuple[str, ...]
    excluded: pd.DataFrame
    notes: tuple[str, ...]
    metadata: MetadataEncoder | None = None
    warning: str = ""
    store: ImageStore | None = None

    @property
    def model_arguments(self) -> dict[str, Any]:
        """Arguments that builders may take from the training split: `class_counts`, its images of each class in the order of
        `classes`; with metadata `metadata_width`, the number of columns, and `metadata_fields`, the number of columns of each
        field without those that mark missing values (with `missing` `mask`, else none)."""
        counts = self.rows("train")["label"].value_counts()
        arguments: dict[str, Any] = {"class_counts": [int(counts.get(name, 0)) for name in self.classes]}
        if self.metadata is not None:
            fields = self.metadata.fields if self.metadata.missing == "mask" else ()
            arguments["metadata_width"] = self.metadata.width
            arguments["metadata_fields"] = [len(field.column_names) for field in fields]
        return arguments

    def encoded(self, table: pd.DataFrame) -> np.ndarray | None:
        """The encoded metadata of rows, (N, M) float32; None without metadata."""
        return self.metadata.transform(table) if self.metadata else None

    def rows(self, split: str) -> pd.DataFrame:
        """The rows of one split, in a stable order."""
        return self.table[self.table["split"] == split].reset_index(drop=True)

    @property
    def tested(self) -> list[str]:
        """Splits that are scored."""
        return tested_splits(self.table)

    @property
    def shown_split(self) -> str:
        """The split whose images are explained, and on which the export is compared: `validation`, or the first tested split of a
        run without validation images."""
        return self.tested[0]

    @property
    def shown_rows(self) -> pd.DataFrame:
        """The rows of the split that is shown."""
        return self.rows(self.shown_split)


def prepare_data(
    experiment: Experiment,
    data_dir: Path | None,
    fold: int = 0,
    metadata: MetadataEncoder | None = None,
    fitted: Mapping[str, pd.DataFrame] | None = None,
) -> PreparedData:
    """Reads every data set that the experiment names and splits the images.

    Args:
        experiment: the experiment.
        data_dir: folder of the data sets.
        fold: for cross-validation, which fold (from 0) is the test split.
        metadata: the encoder of a resumed run; None fits one.
        fitted: the images that other models were fitted on, by the name of the model, see `without_fitted`.

    Raises:
        UserError: missing data, impossible splits, splits that share an image or are empty.
    """
    data = experiment.data
    notes: list[str] = []
    excluded: list[pd.DataFrame] = []

    def read(settings: DatasetSettings) -> Records:
        records = complete_cases(experiment, _read(settings, data_dir, data.on_bad_image))
        notes.extend(note if note.startswith(settings.name) else f"{settings.name}: {note}" for note in records.notes)
        excluded.append(records.excluded.assign(dataset=settings.name))
        return records

    def read_if_there(settings: DatasetSettings) -> Records | None:
        try:
            return read(settings)
        except MissingData as error:
            if not settings.optional:
                raise
            notes.append(f"{settings.name} was not found. It is optional and is not used.")
            log.debug("%s", error)
            return None

    base = read(data.train)
    others = {"test": read(data.test)} if data.test else {}
    external = {f"external/{settings.name}": read_if_there(settings) for settings in data.external}
    others |= {name: records for name, records in external.items() if records}
    _same_classes({data.train.name: base, **others})

    base_table = base.table.assign(dataset=data.train.name)
    base_table["split"] = _split(experiment, _united(base_table), base.classes, fold)
    warning = _straddling(experiment, base_table)
    unused = base_table[base_table["split"] == "test"] if data.test else base_table[:0]
    if data.test and len(unused):
        notes.append(f"{len(unused)} test images of {data.train.name} are not used: this experiment tests on {data.test.name}.")
        base_table = base_table.drop(unused.index)
    others_tables = [records.table.assign(dataset=records.name, split=name) for name, records in others.items()]
    base_table, leaks, sentences = _guarded(experiment, base_table, others_tables)
    excluded.append(leaks)
    notes.extend(sentences)

    # The data set's own test split stays out of training even where this experiment does not test on it.
    held_out = _stack(
        [unused, _held_out(base.excluded, data.train.name), *(_held_out(item.excluded, item.name) for item in others.values())]
    )
    for settings in data.extra_train:
        extra = read_if_there(settings)
        if extra is None:
            continue
        forbidden = [*others_tables, held_out]
        base_table, sentences, dropped = add_training(base_table, extra, settings.labels, forbidden, settings.parts or FITTED)
        notes.extend(sentences)
        excluded.append(dropped.assign(file="", split="train"))

    table = _stack([base_table, *others_tables])
    for owner, images in (fitted or {}).items():
        table, leaks, sentences = without_fitted(table, images, owner, data.leak_guard)
        excluded.append(leaks.assign(file=""))
        notes.extend(sentences)
    uses_masks = experiment.segmenter is not None and experiment.segmenter.masks == "dataset"
    table, incomplete = _complete(table, {*experiment.losses, *(["mask"] if uses_masks else [])})
    if uses_masks:
        table["lesion"] = table["mask"]
    excluded.append(incomplete)
    _not_empty(table, experiment)
    if not (table["split"] == "validation").any():
        notes.append(
            "There are no validation images: the weights of the last epoch are kept, and test images, none of which was trained "
            "on, are explained and compared with the export."
        )
    if experiment.metadata is not None and metadata is None:
        metadata = fit_encoder(experiment, table[table["split"] == "train"])
    if metadata is not None:
        notes.extend(metadata.notes)
    unique_notes = tuple(dict.fromkeys(notes))
    return PreparedData(table, base.classes, _stack(excluded)[EXCLUDED_COLUMNS], unique_notes, metadata, warning)


def read_rows(experiment: Experiment, data_dir: Path | None, wanted: pd.DataFrame) -> pd.DataFrame:
    """Reads some images of a finished run again, without splitting.

    Args:
        experiment: of the run.
        data_dir: folder of the data sets.
        wanted: `dataset` and `image_id` of each, as in the run's `splits.csv`.

    Returns:
        Rows of the images that still exist, in the order of `wanted`.

    Raises:
        UserError: if a data set is missing.
    """
    data = experiment.data
    settings = {item.name: item for item in reversed(_datasets(experiment))}
    tables = [
        _read(settings[name], data_dir, data.on_bad_image).table.assign(dataset=name) for name in wanted["dataset"].unique()
    ]
    return wanted[["dataset", "image_id"]].merge(_stack(tables), on=["dataset", "image_id"])


def render_demo(experiment: Experiment, folder: Path, seed: int) -> Path:
    """Draws a stand-in of every data set that the experiment names into `folder`; returns it."""
    for settings in _datasets(experiment):
        target = folder / settings.name
        if not target.exists():
            log.info("Drawing a SYNTHETIC stand-in of %s", settings.name)
            readers.get(settings.name).info["render"](target, seed=seed)
    return folder


def shorten(prepared: PreparedData, rows: int) -> PreparedData:
    """For a dry run: at most `rows` images of each split, the classes and data sets in turn."""
    tables = [_spread(prepared.rows(split), rows) for split in dict.fromkeys(prepared.table["split"])]
    notes = (*prepared.notes, f"Dry run: at most {rows} images of each split.")
    return replace(prepared, table=pd.concat(tables, ignore_index=True), notes=notes)


def _spread(table: pd.DataFrame, rows: int) -> pd.DataFrame:
    """At most `rows` rows: the classes in turn, and within a class its data sets in turn."""
    turns = table.groupby(["label", "dataset"]).cumcount().sort_values(kind="stable").index
    order = table.loc[turns].groupby("label").cumcount().sort_values(kind="stable").index
    return table.loc[order[:rows]].sort_index()


def _datasets(experiment: Experiment) -> list[DatasetSettings]:
    data = experiment.data
    return [data.train, *data.extra_train, *([data.test] if data.test else []), *data.external]


def _read(settings: DatasetSettings, data_dir: Path | None, on_bad_image: str) -> Records:
    log.info("Reading %s and checking its files", settings.name)
    arguments: dict[str, Any] = settings.arguments
    records = read_dataset(settings.name, data_dir, settings.folder, on_bad_image, **arguments)
    table = records.table
    unknown = sorted(set(settings.labels or []) - set(records.classes))
    if unknown:
        raise UserError(f"{settings.name} has no class {', '.join(unknown)}; its classes are {', '.join(records.classes)}.")
    if settings.parts:
        missing = sorted(set(settings.parts) - set(table["split"]) - set(records.excluded["split"]))
        if missing:
            raise UserError(
                f"{settings.name} has no split {', '.join(missing)}; its splits are {', '.join(sorted(set(table['split'])))}."
            )
        table = table[table["split"].isin(settings.parts)]
    excluded = records.excluded
    if len(excluded):
        log.info(
            "%s: %d images used, %d left out (listed in excluded.csv and the report)", settings.name, len(table), len(excluded)
        )
    return Records(records.name, table.reset_index(drop=True), records.classes, excluded, records.notes)


def _split(experiment: Experiment, table: pd.DataFrame, classes: tuple[str, ...], fold: int) -> pd.Series:
    settings = experiment.split
    return make_splits(
        table,
        settings.scheme,
        validation=settings.validation,
        test=0.0 if experiment.data.test else settings.test,
        folds=settings.folds,
        fold=fold,
        seed=settings.seed,
        classes=classes,
        file=settings.file,
        protocol=settings.protocol,
    )


def _united(table: pd.DataFrame) -> pd.DataFrame:
    """Adds `union_id`: groups that share a picture are one, named after the first of them."""
    unions = pd.Series(unite(table), table.index)
    return table.assign(union_id=table["group_id"].groupby(unions).transform("min"))


def _guarded(
    experiment: Experiment, base: pd.DataFrame, others: list[pd.DataFrame]
) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """The images of the base data set without leaks into its test split and the `others`; the dropped images; and notes.

    The protocol of the papers splits one data set image by image on purpose, so only the others are guarded then.
    """
    grouped = experiment.split.protocol == "grouped"
    guarded = base if grouped else base[base["split"] != "test"].assign(split="train")
    _, dropped, notes = guard(_stack([guarded, *others]), experiment.data.leak_guard, groups=grouped)
    leaking = dropped.loc[dropped["dataset"] == experiment.data.train.name, "image_id"]
    return base[~base["image_id"].isin(leaking)], dropped.assign(file=""), notes


def _straddling(experiment: Experiment, table: pd.DataFrame) -> str:
    """A warning under the protocol of the papers; "" under the grouped one."""
    if experiment.split.protocol == "grouped":
        return ""
    torn, groups = len(straddling_groups(table, table["split"])), table["group_id"].nunique()
    return (
        f"Groups may straddle: split.protocol 'paper' split {experiment.data.train.name} image by image, and {torn} of its "
        f"{groups} patients or lesions have images in more than one split. The numbers of these splits are too good; use the "
        "protocol 'grouped' for anything but a comparison with the paper."
    )


def _same_classes(sets: dict[str, Records]) -> None:
    distinct = {records.classes for records in sets.values()}
    if len(distinct) > 1:
        lines = "\n".join(f"  {name}: {', '.join(records.classes)}" for name, records in sets.items())
        raise UserError(f"Data sets of one experiment must have the same classes:\n{lines}")


def _stack(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """Concatenates tables of texts; missing columns are ""."""
    columns = dict.fromkeys(column for table in tables for column in table.columns)
    return pd.concat([table.reindex(columns=list(columns), fill_value="").astype(str) for table in tables], ignore_index=True)


def _held_out(excluded: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """Ids of excluded test and validation images, which must not be trained on either."""
    return excluded[excluded["split"].isin(["test", "validation"])][["image_id", "split"]].assign(dataset=dataset)


def _complete(table: pd.DataFrame, outputs: set[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Excludes images without the mask or label that the losses, or the segmented image, need."""
    lacks = pd.Series("", index=table.index)
    if "mask" in outputs:
        lacks[table["mask"] == ""] = "no mask"
    if "label" in outputs:
        lacks[table["label"] == ""] = "no label"
    bad = lacks != ""
    return table[~bad].reset_index(drop=True), table[bad].assign(reason=lacks[bad], file="")


def _not_empty(table: pd.DataFrame, experiment: Experiment) -> None:
    counts, monitor = table["split"].value_counts(), experiment.train.monitor
    if not counts.get("train"):
        raise UserError(f"The train split is empty (images: {counts.to_dict()}). Check the excluded images.")
    if not counts.get("validation") and monitor != LAST:
        raise UserError(
            f"The validation split is empty (images: {counts.to_dict()}), and train.monitor {json.dumps(monitor)} chooses the "
            f"best epoch on it. Set split.validation ({experiment.split.validation}) above 0 and check the excluded images, or "
            f"set train.monitor to '{LAST}' to keep the last epoch."
        )
    if not tested_splits(table):
        raise UserError(
            f"There is no validation, test or external image (images: {counts.to_dict()}), so that nothing can be measured. Set "
            f"split.validation ({experiment.split.validation}) above 0, or name a data set in data.test."
        )


def describe(prepared: PreparedData) -> str:
    """One line per split with its class counts."""
    counts = prepared.table.groupby(["split", "label"], sort=False).size().unstack(fill_value=0)
    width = max(map(len, counts.index))
    return "\n".join(
        f"  {split:<{width}}  {int(row.sum()):>6} images   "
        + ", ".join(f"{name or 'no label'} {int(n)}" for name, n in row.items() if n)
        for split, row in counts.iterrows()
    )
