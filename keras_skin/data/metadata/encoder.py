"""The fitted encoder: plain data that turns metadata into numbers, in NumPy for tables, in TensorFlow for the exported model."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from keras_skin.data.metadata.imputer import Imputer
from keras_skin.registry import UserError, shorten

if TYPE_CHECKING:
    import tensorflow as tf

MODES = ("own_column", "mask", "drop", "impute")
UNKNOWN = "UNK"
LARGEST = 1e6
_FORMAT = 1
_ZERO, _ONE = np.float32(0), np.float32(1)


@dataclass(frozen=True)
class Field:
    """The fitted encoding of one field.

    Attributes:
        name: the column of the records table, and the input of the exported model.
        kind: `"numeric"` or `"categorical"`.
        values: the texts that have a column, in the order of the columns; `UNK`, if it has one, is the last.
        mean, scale: a number x becomes (x - mean) / scale.
        low, high: range of the number in the training split; values outside are clipped to it.
    """

    name: str
    kind: str
    values: tuple[str, ...] = ()
    mean: float = 0.0
    scale: float = 1.0
    low: float = 0.0
    high: float = 0.0

    @property
    def column_names(self) -> list[str]:
        return [self.name] if self.kind == "numeric" else [f"{self.name}={value}" for value in self.values]

    def encode(self, cells: Any, numpy: Any) -> tuple[Any, Any]:
        """The field's columns (N, K) float32, zero where it is missing, and whether it is missing (N,).

        Args:
            cells: (N,) of texts, "" where missing, or of float32, -1 (or NaN) where missing.
            numpy: `numpy` or `tensorflow.experimental.numpy`.
        """
        if self.kind == "numeric":
            missing = ~(cells >= _ZERO)
            inside = numpy.clip(cells, np.float32(self.low), np.float32(self.high))
            scaled = (inside - np.float32(self.mean)) * np.float32(1 / self.scale)
            return numpy.where(missing, _ZERO, scaled)[:, np.newaxis], missing
        hits = cells[:, np.newaxis] == np.array(["", *self.values], dtype=object)[np.newaxis]
        blank, hits = hits[:, 0], hits[:, 1:]
        unknown = ~blank & ~numpy.any(hits, axis=1)
        if UNKNOWN in self.values:
            missing = blank
            hits = numpy.concatenate([hits[:, :-1], hits[:, -1:] | unknown[:, np.newaxis]], axis=1)
        else:
            missing = blank | unknown
        return numpy.where(hits, _ONE, _ZERO), missing


@dataclass(frozen=True)
class MetadataEncoder:
    """Encodes metadata as a matrix; made by `fit_metadata`, saved as JSON beside the weights, exported inside the model's graph.

    Attributes:
        fields: the fitted fields, in the order of the columns.
        missing: how missing cells are treated, one of `MODES`.
        preset: name of the published encoding, or None.
        imputer: fills in missing fields (`"impute"` only).
        notes: sentences for the log and the report.
    """

    fields: tuple[Field, ...]
    missing: str
    preset: str | None = None
    imputer: Imputer | None = None
    notes: tuple[str, ...] = ()

    @property
    def _marks_missing(self) -> bool:
        return self.missing == "own_column" and self.preset is None

    @cached_property
    def column_names(self) -> tuple[str, ...]:
        """`age`, `sex=female`, `sex=UNK`, `sex is missing` (own_column), `age is known` (mask; these stand at the end)."""
        names = []
        for field in self.fields:
            names += field.column_names + ([f"{field.name} is missing"] if self._marks_missing else [])
        return tuple(names + ([f"{field.name} is known" for field in self.fields] if self.missing == "mask" else []))

    @property
    def field_of_columns(self) -> tuple[str, ...]:
        """The field that each column belongs to, including the columns `... is missing` and `... is known`."""
        names = [[field.name] * (len(field.column_names) + self._marks_missing) for field in self.fields]
        flags = [field.name for field in self.fields] if self.missing == "mask" else []
        return tuple([name for block in names for name in block] + flags)

    @property
    def width(self) -> int:
        """Number of columns."""
        return len(self.column_names)

    @property
    def availability_columns(self) -> tuple[int, ...]:
        """Indices of the columns `... is known`; a row's metadata are available if any of them is 1 (mask only, else empty)."""
        return tuple(range(self.width - len(self.fields), self.width)) if self.missing == "mask" else ()

    def transform(self, table: pd.DataFrame) -> np.ndarray:
        """Encodes a table of texts ("" where missing).

        Args:
            table: a row for each image, with the columns that `fields` names.

        Returns:
            (N, M) float32, finite everywhere, M as `width`.

        Raises:
            UserError: if columns are missing, or cells of a numeric field are no numbers; with all of them.
        """
        return self._encode(read_cells(table, {field.name: field.kind for field in self.fields}), np)

    def graph(self, fields: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Does the same as `transform` in pure TensorFlow, for `tf.data` and for the exported model.

        Args:
            fields: for each of the encoder's fields a (B,) tensor: tf.string with "" where it is missing, or, for a numeric
                field, tf.float32 with -1 where it is missing (as is any negative number and NaN).

        Returns:
            (B, M) float32.
        """
        import tensorflow as tf

        missing = [field.name for field in self.fields if field.name not in fields]
        if missing:
            raise ValueError(f"There is no tensor for the metadata {', '.join(missing)}.")
        cells = {
            field.name: tf.convert_to_tensor(fields[field.name], tf.float32 if field.kind == "numeric" else tf.string)
            for field in self.fields
        }
        return tf.ensure_shape(self._encode(cells, tf.experimental.numpy), (None, self.width))

    def to_json(self) -> str:
        """The encoder as text, which `from_json` restores exactly."""
        plain = {
            "format": _FORMAT,
            "missing": self.missing,
            "preset": self.preset,
            "column_names": list(self.column_names),
            "fields": [asdict(field) for field in self.fields],
            "imputer": None if self.imputer is None else self.imputer.to_plain(),
            "notes": list(self.notes),
        }
        return json.dumps(plain, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> MetadataEncoder:
        """Reads what `to_json` wrote.

        Raises:
            UserError: if the text is something else.
        """
        try:
            plain = json.loads(text)
            if plain["format"] != _FORMAT:
                raise UserError(f"The metadata encoder has format {plain['format']!r}, expected {_FORMAT}.")
            encoder = cls(
                fields=tuple(Field(**{**entry, "values": tuple(entry["values"])}) for entry in plain["fields"]),
                missing=plain["missing"],
                preset=plain["preset"],
                imputer=None if plain["imputer"] is None else Imputer.from_plain(plain["imputer"]),
                notes=tuple(plain["notes"]),
            )
            if list(encoder.column_names) != plain["column_names"]:
                raise UserError("The metadata encoder's columns are not those of its fields: the file was changed by hand.")
        except UserError:
            raise
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise UserError(f"This is no metadata encoder as to_json writes it: {error}.") from error
        return encoder

    def encode_fields(self, cells: Mapping[str, Any], numpy: Any = np) -> tuple[list[Any], Any]:
        """Each field's columns, and which fields are missing (N, F)."""
        encoded = [field.encode(cells[field.name], numpy) for field in self.fields]
        return [columns for columns, _ in encoded], numpy.concatenate([missing[:, np.newaxis] for _, missing in encoded], axis=1)

    def _encode(self, cells: Mapping[str, Any], numpy: Any) -> Any:
        blocks, missing = self.encode_fields(cells, numpy)
        if self.imputer is not None:
            # in float64, so that NumPy and TensorFlow agree to the last digit of float32 after many matrix products
            wide = numpy.asarray(numpy.concatenate(blocks, axis=1), dtype=np.float64)
            return numpy.asarray(self.imputer.fill(wide, missing, numpy), dtype=np.float32)
        flags = numpy.where(missing, _ONE, _ZERO)
        if self._marks_missing:
            blocks = [columns for index, block in enumerate(blocks) for columns in (block, flags[:, index : index + 1])]
        elif self.missing == "mask":
            blocks = [*blocks, _ONE - flags]
        return numpy.concatenate(blocks, axis=1)


def read_cells(table: pd.DataFrame, fields: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Columns of a table as `Field.encode` takes them.

    Args:
        table: columns of texts, "" where missing.
        fields: names and kinds.

    Raises:
        UserError: if columns are missing, or cells of a numeric one are not numbers from 0 on.
    """
    missing = [name for name in fields if name not in table]
    if missing:
        raise UserError(f"The table has no metadata {', '.join(missing)}; expected the columns {', '.join(fields)}.")
    cells, problems = {}, []
    for name, kind in fields.items():
        texts = _texts(table, name)
        cells[name] = texts.to_numpy(dtype=object)
        if kind == "numeric":
            numbers = {text: _number(text) for text in texts.unique()}
            values = texts.map(numbers).to_numpy(dtype=np.float32)
            bad, rows = np.isnan(values), table.get("image_id", table.index)
            problems += [f"  {row}: {name} is {text!r}" for row, text in zip(rows[bad], texts[bad], strict=True)]
            cells[name] = values
    if problems:
        expected = f"expected a number from 0 to {LARGEST:,.0f}, or nothing where it is unknown:"
        raise UserError("\n".join([f"{len(problems)} cells of the metadata are no numbers, {expected}", *shorten(problems)]))
    return cells


def complete_rows(table: pd.DataFrame, names: list[str]) -> np.ndarray:
    """(N,) bool: rows that have all of the fields."""
    return np.all([(_texts(table, name) != "").to_numpy() for name in names], axis=0)


def _texts(table: pd.DataFrame, name: str) -> pd.Series:
    column = table[name].astype(object)
    return column.where(column.notna(), "").astype(str)


def is_number(text: str) -> bool:
    """Whether a text is a number from 0 to `LARGEST`."""
    return text != "" and not math.isnan(_number(text))


def _number(text: str) -> float:
    """The number; -1 for an empty text, NaN for any other text."""
    if text == "":
        return -1.0
    try:
        value = float(text)
    except ValueError:
        return math.nan
    return value if 0 <= value <= LARGEST else math.nan
