"""Fits a metadata encoder to the training split of a records table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import pandas as pd

from keras_skin.data.metadata.encoder import MODES, UNKNOWN, Field, MetadataEncoder, complete_rows, read_cells
from keras_skin.data.metadata.imputer import fit_imputer
from keras_skin.data.metadata.presets import preset_values
from keras_skin.registry import UserError, did_you_mean


def fit_metadata(
    table: pd.DataFrame,
    fields: Mapping[str, str],
    missing: Literal["own_column", "mask", "drop", "impute"] = "own_column",
    preset: Literal["pad_ufes_20_81"] | None = None,
    never_inputs: Sequence[str] = (),
    inputs: Sequence[str] | None = None,
    seed: int = 0,
) -> MetadataEncoder:
    """Fits the mean, scale and range of each number and the values of each category to the training split.

    `missing` decides how a blank cell ("not asked"), `UNK` ("asked, but unknown") and a value that the training split does not
    have, which counts as `UNK` everywhere, are encoded:

    - `"own_column"`: a blank has 1 in `... is missing`, `UNK` 1 in `...=UNK`; every field has these columns, whether its training
      split needs them or not.
    - `"mask"`: all three are zeros, with 0 in `... is known`.
    - `"drop"`: rows with a blank (see `complete_rows`) are left out; in the exported model, which must answer,
      a blank is zeros. `...=UNK` is a column if the training split has `UNK`; if not, it counts as a blank.
    - `"impute"`: small networks fill in blanks. `...=UNK` as with `"drop"`.

    An encoded zero is the training mean of a number. Numbers are clipped to the training range, so that a slip of the pen (an
    age of 640) cannot drown the image. The preset `"pad_ufes_20_81"` has the published 81 columns whatever the training split
    holds: `...=UNK` for the eight fields where the data set has it, and none for blanks, which with `"own_column"` are zeros.

    Args:
        table: the training split, and nothing else: columns of texts, "" where missing. The order of its rows has no effect.
        fields: the data set's metadata, `"numeric"` or `"categorical"` by name (a reader's `info["metadata"]`).
        missing: see above.
        preset: a published encoding, or None.
        never_inputs: fields that give the label away: used only if `inputs` names them, and then a note reports it. Those that
            are not among `fields` are categorical.
        inputs: the fields to use, in the order of the columns; default: all of `fields` except `never_inputs`.
        seed: for the networks of `"impute"`.

    Returns:
        The encoder.

    Raises:
        UserError: if a field, a mode or a preset is unknown, the table lacks a column, or there is nothing to fit.
    """
    if missing not in MODES:
        raise UserError(f"Metadata: missing is {missing!r}.{did_you_mean(str(missing), MODES)} Known: {', '.join(MODES)}.")
    used, notes = _used_fields(fields, never_inputs, inputs)
    values = None
    if preset is not None:
        values = preset_values(preset, used if inputs is None else dict(fields))
        if missing == "mask" or inputs is not None:
            conflict = (
                "'mask' needs columns that it does not have" if missing == "mask" else "it takes all fields, so leave inputs out"
            )
            raise UserError(f"Metadata: the preset {preset!r} is fixed: {conflict}.")
        used = {name: used[name] for name in values}
    cells = read_cells(table, used)
    if missing == "drop":
        keep = complete_rows(table, list(used))
        cells = {name: column[keep] for name, column in cells.items()}
        notes.append(f"Metadata: {int((~keep).sum())} of {len(table)} training rows lack a field and are left out.")
    if not any(_known(column).any() for column in cells.values()):
        raise UserError(
            f"Metadata: no training row (of {len(table)}) has "
            + (f"all of the fields {', '.join(used)}" if missing == "drop" else f"any of the fields {', '.join(used)}")
            + ". Name fields that the data set has as inputs, or leave the metadata out."
        )
    fitted = tuple(_fit_field(name, kind, cells[name], missing, values) for name, kind in used.items())
    empty = [name for name, column in cells.items() if not _known(column).any()]
    notes += [f"Metadata: no training row has the field '{name}'; the model learns nothing from it." for name in empty]
    encoder = MetadataEncoder(fitted, missing, preset, notes=tuple(notes))
    return _with_imputer(encoder, cells, seed) if missing == "impute" else encoder


def _used_fields(
    fields: Mapping[str, str], never_inputs: Sequence[str], inputs: Sequence[str] | None
) -> tuple[dict[str, str], list[str]]:
    """The fields to encode and their kinds, in order, and notes on those that should not be."""
    kinds = {**dict.fromkeys(never_inputs, "categorical"), **fields}
    if inputs is None:
        inputs = [name for name in fields if name not in never_inputs]
    problems = [
        f"There is no metadata field '{name}'.{did_you_mean(name, kinds)} Known: {', '.join(fields)}."
        for name in inputs
        if name not in kinds
    ]
    problems += [f"The metadata field '{name}' is named twice." for name in dict.fromkeys(inputs) if inputs.count(name) > 1]
    problems += [
        f"The metadata field '{name}' is {kinds[name]!r}, expected 'numeric' or 'categorical'."
        for name in inputs
        if kinds.get(name, "numeric") not in ("numeric", "categorical")
    ]
    if not inputs:
        problems.append("No metadata field is left to encode.")
    if problems:
        raise UserError("\n".join(problems))
    notes = [
        f"SHORTCUT: the metadata field '{name}' gives the label away; it is an input because the experiment names it."
        for name in inputs
        if name in never_inputs
    ]
    return {name: kinds[name] for name in inputs}, notes


def _known(column: np.ndarray) -> np.ndarray:
    return column != "" if column.dtype == object else column >= 0


def _fit_field(name: str, kind: str, cells: np.ndarray, missing: str, preset: Mapping[str, tuple[str, ...]] | None) -> Field:
    values = cells[_known(cells)]
    if kind == "categorical":
        if preset is not None:
            return Field(name, kind, preset[name])
        words = set(values.tolist())
        has_unknown = missing == "own_column" or (missing != "mask" and UNKNOWN in words)
        return Field(name, kind, (*sorted(words - {UNKNOWN}), *([UNKNOWN] if has_unknown else [])))
    if not len(values):
        return Field(name, kind)
    numbers = np.sort(values.astype(np.float64))  # sums of sorted numbers do not depend on the order of the rows
    mean, deviation = float(numbers.mean()), float(numbers.std())
    scale = deviation if deviation > 1e-6 * max(1.0, mean) else 1.0
    return Field(name, kind, (), mean, scale, float(numbers[0]), float(numbers[-1]))


def _with_imputer(encoder: MetadataEncoder, cells: Mapping[str, np.ndarray], seed: int) -> MetadataEncoder:
    blocks, missing = encoder.encode_fields(cells)
    matrix = np.concatenate(blocks, axis=1).astype(np.float64)
    order = np.lexsort(np.hstack([missing, matrix]).T)  # the networks' batches must not depend on the order of the rows
    ends = np.cumsum([block.shape[1] for block in blocks]).tolist()
    limits = [
        ((field.low - field.mean) / field.scale, (field.high - field.mean) / field.scale) if field.kind == "numeric" else None
        for field in encoder.fields
    ]
    imputer = fit_imputer(matrix[order], missing[order], list(zip([0, *ends[:-1]], ends, strict=True)), limits, seed)
    note = (
        f"Metadata: {int(missing.sum())} of {missing.size} cells of the training split are missing, in "
        f"{int(missing.any(axis=1).sum())} of {len(missing)} rows; {len(imputer.networks)} small networks fill them in."
    )
    return replace(encoder, imputer=imputer, notes=(*encoder.notes, note))
