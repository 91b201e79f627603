"""Reads the clinical fields of image files from a CSV file. No image gets the cells of a row that could mean another one."""

from __future__ import annotations

import os
import posixpath
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from keras_skin.data.datasets import tables
from keras_skin.data.metadata.encoder import LARGEST, is_number
from keras_skin.registry import UserError, did_you_mean, shorten
from keras_skin.workflow.prediction import SUFFIXES, ExportedModel, Picture

KEYS = ("image", "image_id", "file")
UNUSED = "metadata_unused.csv"


class UnusedCell(NamedTuple):
    """A cell of the table that no prediction uses. `cell` is "" for a whole column."""

    line: int
    column: str
    cell: str
    reason: str


@dataclass(frozen=True)
class Answers:
    """The clinical fields of the pictures.

    Attributes:
        table: a row of texts for each picture, "" where a field is unknown.
        notes: sentences about what was not used.
        unused: every row, column and cell that was not used. A row is named by its first cell.
    """

    table: pd.DataFrame
    notes: list[str]
    unused: list[UnusedCell]


def read_answers(file: Path, model: ExportedModel, pictures: Sequence[Picture]) -> Answers:
    """Reads the clinical fields of the pictures from a CSV file.

    A row names its image by the path below the named folder, or by the end of the path, with or without a suffix: `a.jpg`,
    `patient_7/a`. A path that starts with `./` is the path below the named folder only. A path that ends with `/` stands for
    all images below that folder.

    Args:
        file: CSV with a column `image` (or `image_id`, or `file`) and one column per field, in any order and case; blank cells
            are unknown.
        model: the model, which has the fields.
        pictures: the images to predict.

    Raises:
        UserError: listing everything that is wrong with the file: rows that could mean more than one image, images that more
            than one row could mean, cells that are no numbers.
    """
    if not model.fields:
        raise UserError(f"--metadata {file}: the model '{model.about['name']}' takes no clinical fields; leave it out.")
    header = tables.read_header(file)
    lower = [name.lower() for name in header]
    key = next((name for name in KEYS if name in lower), None)
    if key is None:
        raise UserError(f"--metadata {file}: it has no column {' or '.join(KEYS)}. It has: {', '.join(header)}.")
    inputs = [name for name in model.fields if name.lower() in lower]
    table = tables.read_table(file, [tables.text(name) for name in (key, *inputs)])
    rows = [_Row(line, name) for line, name in zip(table.index.tolist(), table[key].tolist(), strict=True)]
    row_of, unused_rows, problems = _match(rows, pictures)
    problems += _wrong_numbers(table, model)
    if problems:
        lines = shorten([f"  {problem}" for problem in problems])
        raise UserError("\n".join([f"--metadata {file}:", *lines]))

    notes, unused = [], []
    for place, column in enumerate(header):
        if column and lower[place] not in (key, *(name.lower() for name in inputs)):
            notes.append(f"Column '{column}' is not used.{did_you_mean(column, model.fields)} Fields: {', '.join(model.fields)}.")
            unused.append(UnusedCell(1, column, "", "the model has no such field"))
    notes += [f"Field '{name}' has no column: it is unknown for every image." for name in model.fields if name not in inputs]
    if unused_rows:
        lines = shorten([f"  line {row.line}: {row.name!r}: {reason}" for row, reason in unused_rows])
        notes.append("\n".join([f"{len(unused_rows)} of {len(rows)} rows are not used:", *lines]))
        unused += [UnusedCell(row.line, key, row.name, reason) for row, reason in unused_rows]
    without = [picture.path for picture, row in zip(pictures, row_of, strict=True) if row is None]
    if without:
        lines = shorten([f"  {path}" for path in without])
        notes.append("\n".join([f"{len(without)} of {len(pictures)} images have no row, their fields are unknown:", *lines]))
    used = table.iloc[sorted({row for row in row_of if row is not None})]
    value_notes, unknown = _unknown_values(used, model)
    notes += value_notes
    unused += unknown
    answers = table.reset_index(drop=True).reindex([-1 if row is None else row for row in row_of], fill_value="")
    return Answers(answers.reindex(columns=list(model.fields), fill_value="").reset_index(drop=True), notes, unused)


class _Row(NamedTuple):
    """A row of the table: its line and the path that it names."""

    line: int
    name: str

    @property
    def key(self) -> str:
        """The path in one form; a folder ends with `/`."""
        return _normal(self.name)

    def __str__(self) -> str:
        return f"line {self.line} ({self.name!r})"


@dataclass
class _Places:
    """Images and folders by the texts that name them.

    Attributes:
        below: absolute paths by their path below the named folder.
        exact: absolute paths by their path below the named folder, the path as given and the absolute path.
        ends: absolute paths by the ends of them.
        pictures: for each absolute path the positions of its pictures; of a folder, all pictures below it.
    """

    below: dict[str, list[str]] = field(default_factory=dict)
    exact: dict[str, list[str]] = field(default_factory=dict)
    ends: dict[str, list[str]] = field(default_factory=dict)
    pictures: dict[str, list[int]] = field(default_factory=dict)

    def add(self, place: str, position: int, below: str, given: str, depth: int, suffixes: Sequence[str] = ("",)) -> None:
        """Adds a picture to an image or folder, which is known by up to `depth` parts of its path, without each suffix."""
        if place in self.pictures:
            if position != self.pictures[place][-1]:
                self.pictures[place].append(position)
        else:
            self.pictures[place] = [position]
            parts = _normal(place).rstrip("/").split("/")
            slash = "/" if place.endswith("/") else ""
            ends = ["/".join(parts[-count:]) + slash for count in range(1, min(depth, len(parts)) + 1)]
            _add(self.ends, ends, place, suffixes)
        _add(self.below, [_normal(below)], place, suffixes)
        _add(self.exact, map(_normal, (below, given, place)), place, suffixes)

    def find(self, row: _Row) -> tuple[list[str], list[str]]:
        """The places that a row names by a whole path, and those that it names by the end of a path."""
        if not row.name:
            return [], []
        if row.name.replace("\\", "/").startswith("./"):
            return self.below.get(row.key, []), []
        return self.exact.get(row.key, []), self.ends.get(row.key, [])


def _add(index: dict[str, list[str]], names: Iterable[str], place: str, suffixes: Sequence[str]) -> None:
    for name in names:
        for suffix in suffixes:
            places = index.setdefault(name.removesuffix(suffix), [])
            if place not in places[-1:]:
                places.append(place)


def _normal(path: str) -> str:
    """The path with "/", without `.` and `x/..`, its accents in one form. The slash at the end of a folder is kept."""
    path = unicodedata.normalize("NFC", path.replace("\\", "/"))
    return posixpath.normpath(path) + ("/" if path.endswith("/") and path.strip("/") else "")


def _places(pictures: Sequence[Picture], depth: int) -> _Places:
    places = _Places()
    for position, picture in enumerate(pictures):
        file, path = Path(os.path.abspath(picture.file)), Path(picture.path)
        suffix = file.suffix if file.suffix.lower() in SUFFIXES else ""
        places.add(str(file), position, picture.path, str(picture.file), depth, ("", suffix) if suffix else ("",))
        folders = zip(path.parents, picture.file.parents, file.parents, strict=False)  # up to the named folder
        for below, given, absolute in folders:
            places.add(f"{absolute}/", position, f"{below.as_posix()}/", f"{given.as_posix()}/", depth)
    return places


def _match(rows: Sequence[_Row], pictures: Sequence[Picture]) -> tuple[list[int | None], list[tuple[_Row, str]], list[str]]:
    """Matches rows and pictures.

    Returns:
        For each picture the position of its row; the rows that no picture uses, with the reason; sentences about everything
        that is ambiguous.
    """
    places = _places(pictures, max((row.key.rstrip("/").count("/") + 1 for row in rows), default=1))
    owners: dict[str, set[int]] = {}  # of each place the rows that name it by a whole path
    for number, row in enumerate(rows):
        if len(exact := places.find(row)[0]) == 1:
            owners.setdefault(exact[0], set()).add(number)

    rows_of: list[list[int]] = [[] for _ in pictures]
    unused, problems, lines = list[tuple[_Row, str]](), list[str](), dict[str, int]()
    for number, row in enumerate(rows):
        exact, ends = places.find(row)
        matches = list(dict.fromkeys([*exact, *ends]))
        remaining = [place for place in matches if place in exact or not owners.get(place, set()) - {number}]
        if len(remaining) > 1:
            problems.append(_ambiguous_row(row, remaining))
        for place in remaining or matches:
            for position in places.pictures[place]:
                rows_of[position].append(number)
        if matches:
            continue
        unused.append((row, _why_unused(row, places)))
        if row.name and lines.setdefault(row.key, row.line) != row.line:
            problems.append(f"lines {lines[row.key]} and {row.line}: {row.name} has more than one row.")
    for picture, numbers in zip(pictures, rows_of, strict=True):
        if len(numbers) > 1:
            listed = " and ".join(str(rows[number]) for number in numbers[:3]) + (" and others" if len(numbers) > 3 else "")
            problems.append(f"{picture.file} has more than one row: {listed} could mean it. Keep one of them.")
    return [numbers[0] if numbers else None for numbers in rows_of], unused, problems


def _ambiguous_row(row: _Row, places: Sequence[str]) -> str:
    listed = " and ".join(places[:3]) + (f" and {len(places) - 3} more" if len(places) > 3 else "")
    return f"{row} could mean {listed}. Write one of these paths, or ./ and the path below the named folder."


def _why_unused(row: _Row, places: _Places) -> str:
    if not row.name:
        return "it names no image"
    if row.key.endswith("/"):
        return "no folder of images has this name"
    is_folder = f"{row.key}/" in places.exact or f"{row.key}/" in places.ends
    return f"no image has this name{f'; write {row.name}/ for all images of the folder' if is_folder else ''}"


def _wrong_numbers(table: pd.DataFrame, model: ExportedModel) -> list[str]:
    problems = []
    for name, kind in model.fields.items():
        if kind != "numeric" or name not in table:
            continue
        wrong = {text for text in table[name].unique().tolist() if text and not is_number(text)}
        problems += [
            f"line {line}: {name} is {text!r}, expected a number from 0 to {LARGEST:,.0f}, or nothing."
            for line, text in table.loc[table[name].isin(wrong), name].items()
        ]
    return problems


def _unknown_values(rows: pd.DataFrame, model: ExportedModel) -> tuple[list[str], list[UnusedCell]]:
    """Sentences about values that training never saw, and the cells that hold them."""
    notes, unused = [], []
    for name, values in (model.about.get("metadata") or {}).items():
        vocabulary = set(values.get("values") or ())
        if not vocabulary or name not in rows:
            continue
        cells = rows.loc[~rows[name].isin({*vocabulary, ""}), name]
        if cells.empty:
            continue
        unseen = sorted(set(cells))
        listed = ", ".join(f"{text!r} (line {cells.index[cells == text][0]})" for text in unseen[:5])
        notes.append(
            f"{name}: {listed}{', ...' if len(unseen) > 5 else ''} was not seen in training and "
            f"counts as unknown.{did_you_mean(unseen[0], vocabulary)} Known: {', '.join(sorted(vocabulary))}."
        )
        unused += [UnusedCell(int(str(line)), name, text, "not seen in training") for line, text in cells.items()]
    return notes, unused
