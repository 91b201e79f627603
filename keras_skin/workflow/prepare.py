"""From the experiment's data block to parts that share no image: read, split, add, exclude, and keep account of all of it."""

from __future__ import annotations

import logging
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
from keras_skin.experiment import DatasetSettings, Experiment
from keras_skin.registry import UserError
from keras_skin.workflow.clinical import complete_cases, fit_encoder

log = logging.getLogger("keras_skin")

FITTED = ("train", "validation")
EXCLUDED_COLUMNS = ["dataset", "image_id", "file", "reason", "split"]


@dataclass(frozen=True)
class PreparedData:
    """All that a run sees.

    Attributes:
        table: one row per image; `split` is `train`, `validation`, `test` or `external/<name>`; `dataset` says where it
        comes from; `lesion`, where a segmenter is used, is the file of the mask that cuts the lesion out.
        classes: labels in the order of the model's outputs.
        excluded: what was left out: `dataset, image_id, file, reason, split`.
        notes: sentences for the log and the report.
        metadata: the encoder of clinical metadata, fitted on the training part; None if the experiment uses none.
        store: the image store of the table; None until the model is known, or where images are decoded each time.
        warning: why the numbers of the validation and test parts are too good; "" if they are not.
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
        """What builders may ask of the training part: `class_counts`, its images of each class in the order of `classes`; with
        metadata `metadata_width`, their columns, and `metadata_fields`, the columns of each field before those that say which
        fields are known (with `missing` `mask`, else none)."""
        counts = self.part("train")["label"].value_counts()
        told: dict[str, Any] = {"class_counts": [int(counts.get(name, 0)) for name in self.classes]}
        if self.metadata is not None:
            fields = self.metadata.fields if self.metadata.missing == "mask" else ()
            told["metadata_width"] = self.metadata.width
            told["metadata_fields"] = [len(field.column_names) for field in fields]
        return told

    def encoded(self, table: pd.DataFrame) -> np.ndarray | None:
        """The metadata of some of the rows, (N, M) float32."""
        return self.metadata.transform(table) if self.metadata else None

    def part(self, split: str) -> pd.DataFrame:
        """The rows of one part, in a stable order."""
        return self.table[self.table["split"] == split].reset_index(drop=True)

    @property
    def tested(self) -> list[str]:
        """Parts that are scored: validation, test, then external data sets."""
        present = list(dict.fromkeys(self.table["split"]))
        return [name for name in ("validation", "test") if name in present] + [
            name for name in present if name.startswith("external/")
        ]


def prepare_data(
    experiment: Experiment,
    data_dir: Path | None,
    fold: int = 0,
    metadata: MetadataEncoder | None = None,
    segmented_by: pd.DataFrame | None = None,
) -> PreparedData:
    """Reads every data set that the experiment names and parts the images.

    Args:
        experiment: the experiment.
        data_dir: folder of the data sets.
        fold: for cross-validation, which fold (from 0) is the test part.
        metadata: the encoder that a resumed run began with; default: one is fitted.
        segmented_by: the images that the segmenter was fitted on, see `without_fitted`.

    Raises:
        UserError: missing data, impossible splits, parts that share an image, parts that are empty.
    """
    data = experiment.data
    notes: list[str] = []
    excluded: list[pd.DataFrame] = []

    def read(settings: DatasetSettings) -> Records:
        records = complete_cases(experiment, _read(settings, data_dir, data.on_bad_image))
        notes.extend(note if note.startswith(settings.name) else f"{settings.name}: {note}" for note in records.notes)
        excluded.append(records.excluded.assign(dataset=settings.name))
        return records

    base = read(data.train)
    others = {"test": read(data.test)} if data.test else {}
    others |= {f"external/{settings.name}": read(settings) for settings in data.external}
    _same_classes({data.train.name: base, **others})

    base_table = base.table.assign(dataset=data.train.name)
    base_table["split"] = _split(experiment, _united(base_table), base.classes, fold)
    warning = _straddling(experiment, base_table)
    unused = base_table[base_table["split"] == "test"] if data.test else base_table[:0]
    if data.test and len(unused):
        notes.append(
            f"{len(unused)} images of the test part of {data.train.name} are not used: this experiment tests on {data.test.name}."
        )
        base_table = base_table.drop(unused.index)
    apart = [records.table.assign(dataset=records.name, split=name) for name, records in others.items()]
    base_table, leaks, more = _guarded(experiment, base_table, apart)
    excluded.append(leaks)
    notes.extend(more)

    # the data set's own test part stays out of training even when it is not what this experiment tests on
    held_out = _stack(
        [unused, _held_out(base.excluded, data.train.name), *(_held_out(item.excluded, item.name) for item in others.values())]
    )
    for settings in data.extra_train:
        try:
            extra = read(settings)
        except MissingData as error:
            if not settings.optional:
                raise
            notes.append(f"{settings.name} was not found; going on without it (it is optional).")
            log.debug("%s", error)
            continue
        base_table, more, dropped = add_training(base_table, extra, settings.labels, [*apart, held_out], settings.parts or FITTED)
        notes.extend(more)
        excluded.append(dropped.assign(file="", split="train"))

    table = _stack([base_table, *apart])
    if segmented_by is not None:
        table, leaks, more = without_fitted(table, segmented_by, data.leak_guard)
        excluded.append(leaks.assign(file=""))
        notes.extend(more)
    own_masks = experiment.segmenter is not None and experiment.segmenter.masks == "dataset"
    table, incomplete = _complete(table, {*experiment.losses, *(["mask"] if own_masks else [])})
    if own_masks:
        table["lesion"] = table["mask"]
    excluded.append(incomplete)
    _not_empty(table, experiment)
    if experiment.metadata is not None and metadata is None:
        metadata = fit_encoder(experiment, table[table["split"] == "train"])
    if metadata is not None:
        notes.extend(metadata.notes)
    told = tuple(dict.fromkeys(notes))
    return PreparedData(table, base.classes, _stack(excluded)[EXCLUDED_COLUMNS], told, metadata, warning)


def read_rows(experiment: Experiment, data_dir: Path | None, wanted: pd.DataFrame) -> pd.DataFrame:
    """Reads some images of a finished run again, without parting anything.

    Args:
        experiment: of the run.
        data_dir: folder of the data sets.
        wanted: `dataset` and `image_id` of each, as in the run's `splits.csv`.

    Returns:
        Their rows, in the order of `wanted`; of those only that are still there.

    Raises:
        UserError: if a data set is not there.
    """
    data = experiment.data
    named = [data.train, *data.extra_train, *([data.test] if data.test else []), *data.external]
    settings = {item.name: item for item in reversed(named)}
    tables = [
        _read(settings[name], data_dir, data.on_bad_image).table.assign(dataset=name) for name in wanted["dataset"].unique()
    ]
    return wanted[["dataset", "image_id"]].merge(_stack(tables), on=["dataset", "image_id"])


def render_demo(experiment: Experiment, folder: Path, seed: int) -> Path:
    """Draws a stand-in of every data set that the experiment names into `folder`; returns it."""
    data = experiment.data
    named = [data.train, *data.extra_train, *([data.test] if data.test else []), *data.external]
    for settings in named:
        target = folder / settings.name
        if not target.exists():
            log.info("Drawing a SYNTHETIC stand-in of %s", settings.name)
            readers.get(settings.name).info["render"](target, seed=seed)
    return folder


def shorten(prepared: PreparedData, rows: int) -> PreparedData:
    """For a dry run: at most `rows` images of each part, spread over the part so that its classes are there."""
    kept = [_spread(prepared.part(split), rows) for split in dict.fromkeys(prepared.table["split"])]
    notes = (*prepared.notes, f"Dry run: at most {rows} images of each part.")
    return replace(prepared, table=pd.concat(kept, ignore_index=True), notes=notes)


def _spread(part: pd.DataFrame, rows: int) -> pd.DataFrame:
    order = part.groupby("label").cumcount().sort_values(kind="stable").index
    return part.loc[order[:rows]].sort_index()


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
                f"{settings.name} has no part {', '.join(missing)}; its parts are {', '.join(sorted(set(table['split'])))}."
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
    """With `union_id`: groups that share a picture are one, named after the first of them."""
    unions = pd.Series(unite(table), table.index)
    return table.assign(union_id=table["group_id"].groupby(unions).transform("min"))


def _guarded(
    experiment: Experiment, base: pd.DataFrame, apart: list[pd.DataFrame]
) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """What of the base data set may stay beside its own test part and the sets `apart`, what not, and sentences.

    The protocol of the papers parts one data set image by image on purpose, so only the others are guarded against then.
    """
    grouped = experiment.split.protocol == "grouped"
    parts = base if grouped else base[base["split"] != "test"].assign(split="train")
    _, dropped, notes = guard(_stack([parts, *apart]), experiment.data.leak_guard, groups=grouped)
    kept = base[~base["image_id"].isin(dropped.loc[dropped["dataset"] == experiment.data.train.name, "image_id"])]
    return kept, dropped.assign(file=""), notes


def _straddling(experiment: Experiment, table: pd.DataFrame) -> str:
    """What the protocol of the papers does to the parts; "" under the grouped one."""
    if experiment.split.protocol == "grouped":
        return ""
    torn, groups = len(straddling_groups(table, table["split"])), table["group_id"].nunique()
    return (
        f"Groups may straddle: split.protocol 'paper' parted {experiment.data.train.name} image by image, and {torn} of its "
        f"{groups} patients or lesions have images in more than one part. The numbers of these parts are too good; use the "
        "protocol 'grouped' for anything but a comparison with the paper."
    )


def _same_classes(sets: dict[str, Records]) -> None:
    distinct = {records.classes for records in sets.values()}
    if len(distinct) > 1:
        lines = "\n".join(f"  {name}: {', '.join(records.classes)}" for name, records in sets.items())
        raise UserError(f"Data sets of one experiment must have the same classes:\n{lines}")


def _stack(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """Tables of texts below each other; "" where one has not another's column."""
    columns = dict.fromkeys(column for table in tables for column in table.columns)
    return pd.concat([table.reindex(columns=list(columns), fill_value="").astype(str) for table in tables], ignore_index=True)


def _held_out(excluded: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """Ids of test images that have no file here: they are held out all the same."""
    return excluded[excluded["split"].isin(["test", "validation"])][["image_id", "split"]].assign(dataset=dataset)


def _complete(table: pd.DataFrame, outputs: set[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Leaves out images that lack what the model's losses, or its segmented image, need."""
    lacks = pd.Series("", index=table.index)
    if "mask" in outputs:
        lacks[table["mask"] == ""] = "no mask"
    if "label" in outputs:
        lacks[table["label"] == ""] = "no label"
    bad = lacks != ""
    return table[~bad].reset_index(drop=True), table[bad].assign(reason=lacks[bad], file="")


def _not_empty(table: pd.DataFrame, experiment: Experiment) -> None:
    counts = table["split"].value_counts()
    for split in FITTED:
        if not counts.get(split):
            raise UserError(
                f"The {split} part is empty (parts: {counts.to_dict()}). Best weights are chosen on the validation part; "
                f"check split.validation ({experiment.split.validation}) and the excluded images."
            )


def describe(prepared: PreparedData) -> str:
    """One line per part with its class counts."""
    counts = prepared.table.groupby(["split", "label"], sort=False).size().unstack(fill_value=0)
    width = max(map(len, counts.index))
    return "\n".join(
        f"  {split:<{width}}  {int(row.sum()):>6} images   "
        + ", ".join(f"{name or 'no label'} {int(n)}" for name, n in row.items() if n)
        for split, row in counts.iterrows()
    )
