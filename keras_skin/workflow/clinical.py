"""Clinical metadata of an experiment: which fields, of which data sets, and the encoder fitted on the training split."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from keras_skin.data.datasets import readers
from keras_skin.data.datasets.records import ExclusionKind, Records, excluded_rows
from keras_skin.data.metadata import MetadataEncoder, fit_metadata
from keras_skin.experiment import Experiment
from keras_skin.registry import UserError


def complete_cases(experiment: Experiment, records: Records) -> Records:
    """The records without rows that lack a field of `data.complete` or, with `metadata.missing` `drop`, one of the metadata.

    Raises:
        UserError: if the data set has no such metadata.
    """
    settings = experiment.metadata
    fields = _available(experiment.data.complete, records.name, "data.complete")
    if settings is not None:
        inputs = _fields(experiment, records.name)
        fields = list(dict.fromkeys([*fields, *(inputs if settings.missing == "drop" else ())]))
    if not fields:
        return records
    blank = (records.table[fields] == "").any(axis=1)
    excluded = excluded_rows(records.table[blank], ExclusionKind.INCOMPLETE_METADATA, "metadata are not complete")
    return replace(
        records,
        table=records.table[~blank].reset_index(drop=True),
        excluded=pd.concat([records.excluded, excluded], ignore_index=True),
        notes=(*records.notes, f"{int(blank.sum())} of {len(blank)} images lack one of {', '.join(fields)} and are not used."),
    )


def fit_encoder(experiment: Experiment, train: pd.DataFrame) -> MetadataEncoder:
    """The experiment's encoder, fitted on the training split."""
    settings, info = experiment.metadata, readers.get(experiment.data.train.name).info
    assert settings is not None
    return fit_metadata(
        train,
        info.get("metadata", {}),
        missing=settings.missing,
        preset=settings.preset,
        never_inputs=info.get("never_inputs", ()),
        inputs=settings.inputs,
        seed=experiment.train.seed,
    )


def _fields(experiment: Experiment, dataset: str) -> list[str]:
    """The metadata fields of the model, all of which the data set must have."""
    assert experiment.metadata is not None
    trained = readers.get(experiment.data.train.name).info
    default = [name for name in trained.get("metadata", {}) if name not in trained.get("never_inputs", ())]
    wanted = experiment.metadata.inputs or default
    if not wanted:
        raise UserError(
            f"The experiment uses clinical metadata, but the data set '{dataset}' has none. Name another data set, or remove "
            "metadata."
        )
    return _available(wanted, dataset, "metadata.inputs")


def _available(fields: list[str], dataset: str, key: str) -> list[str]:
    """The fields, all of which the data set must have; `key` is the setting that names them."""
    info = readers.get(dataset).info
    available = [*info.get("metadata", {}), *info.get("never_inputs", ())]
    lacking = [name for name in fields if name not in available]
    if lacking:
        remove = " or remove metadata" if key.startswith("metadata") else " or to []"
        raise UserError(
            f"The experiment uses clinical metadata, but the data set '{dataset}' has no {', '.join(lacking)}. "
            f"It has: {', '.join(available) or 'none'}. Set {key} to fields that every data set has,{remove}."
        )
    return fields
