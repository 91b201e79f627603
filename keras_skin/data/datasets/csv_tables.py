"""CSV tables by the names of their columns: read, checked, and joined with image files a whole column at a time.

`tables.py` works row by row on tables of two or three columns without headings; what is here serves the larger ones: a table of a
million rows takes seconds, and no file is asked for by name (folders are listed once).
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from keras_skin.data.datasets.records import COLUMNS, EXCLUDED_COLUMNS, Records, bare_id
from keras_skin.data.datasets.tables import Files
from keras_skin.registry import UserError

PRINTED = 20
_DELIMITERS = (",", "\t", ";")
_ID = re.compile(r"(?!\.)(?!.*\.\.)[^/\\:]+")
_FLAGS = {"0": False, "0.0": False, "1": True, "1.0": True}


@dataclass(frozen=True)
class Column:
    """A column that a table must have: its name, what stands in it (for messages), and whether a text may.

    Attributes:
        accepts: asked once for each different text; `None` takes all.
        required: whether a table without the column is an error; else the column is filled with "".
    """

    name: str
    expected: str = "text"
    accepts: Callable[[str], object] | None = None
    required: bool = True


def text(name: str, required: bool = True) -> Column:
    """A column of any text."""
    return Column(name, required=required)


def image_ids(name: str) -> Column:
    """A column of image ids; ids become paths, so none may lead out of its folder."""
    return Column(name, "an image id without '..' or a path separator", _ID.fullmatch)


def number(name: str, low: float, high: float) -> Column:
    """A column of numbers from `low` to `high`, or nothing where it is not known."""

    def accepts(cell: str) -> bool:
        try:
            return cell == "" or low <= float(cell) <= high
        except ValueError:
            return False

    return Column(name, f"a number from {low:g} to {high:g}, or nothing", accepts)


def one_of(name: str, texts: Sequence[str]) -> Column:
    """A column of certain words."""
    return Column(name, f"one of {', '.join(word or 'nothing' for word in texts)}", frozenset(texts).__contains__)


def flag(name: str) -> Column:
    """A column of 0.0 and 1.0."""
    return Column(name, "0.0 or 1.0", _FLAGS.__contains__)


def read_table(path: Path, columns: Sequence[Column], one_hot: Sequence[str] = ()) -> pd.DataFrame:
    """Reads the columns asked for; others are passed over. Headings may be in any order and any case.

    Args:
        path: a table in UTF-8, with or without byte order mark, separated by commas, tabs or semicolons, any line ends.
        columns: what the table must have.
        one_hot: names of columns of 0.0 and 1.0 of which exactly one is 1.0 in each row; they become the column `label`.

    Returns:
        A frame of stripped texts, by line number; an empty text where nothing stands.

    Raises:
        UserError: with every mistake: file, line, what was found, what was expected.
    """
    wanted = [*columns, *(flag(name) for name in one_hot)]
    frame, mistakes = _split(path, wanted)
    for column in wanted:
        if column.accepts is not None:
            wrong = [cell for cell in frame[column.name].unique().tolist() if not column.accepts(cell)]
            if wrong:
                cells = frame.loc[frame[column.name].isin(wrong), column.name]
                mistakes += _Mistake.of(cells, f"{column.name} {{!r}}", column.expected)
    if one_hot:
        ones = frame[list(one_hot)].isin([cell for cell, value in _FLAGS.items() if value])
        several = ones.sum(axis=1)
        mistakes += _Mistake.of(several[several != 1].astype(str), "{} columns that are 1.0", f"one of {', '.join(one_hot)}")
        frame = frame.assign(label=ones.idxmax(axis=1).astype(str)).drop(columns=list(one_hot))
    _raise(path, mistakes)
    return frame


@dataclass(frozen=True)
class _Mistake:
    """One wrong line, or, with `line` 0, how many more there are of its kind."""

    line: int
    text: str
    count: int = 1

    @classmethod
    def of(cls, wrong: pd.Series, found: str, expected: str) -> list[_Mistake]:
        listed = [
            cls(int(str(line)), f"found {found.format(cell)}, expected {expected}") for line, cell in wrong.head(PRINTED).items()
        ]
        return listed + ([cls(0, "", len(wrong) - PRINTED)] if len(wrong) > PRINTED else [])


def _raise(path: Path, mistakes: Sequence[_Mistake]) -> None:
    if not mistakes:
        return
    listed = sorted((mistake for mistake in mistakes if mistake.line), key=lambda mistake: mistake.line)[:PRINTED]
    more = sum(mistake.count for mistake in mistakes) - len(listed)
    raise UserError(
        "\n".join(
            [
                f"{path} cannot be read:",
                *(f"  line {mistake.line}: {mistake.text}" for mistake in listed),
                *([f"  ... and {more} more"] if more else []),
            ]
        )
    )


def _split(path: Path, columns: Sequence[Column]) -> tuple[pd.DataFrame, list[_Mistake]]:
    """The columns of a table, and the lines that have too many or too few cells."""
    content = _decode(path)
    first = next((line for line in content.split("\n", 50) if line.strip()), "")
    delimiter = max(_DELIMITERS, key=first.count)
    if '"' in content:
        lines, cells = _quoted_rows(path, content, delimiter)
        widths = [len(row) for row in cells]
    else:
        blank = f" {delimiter}"
        rows = content.split("\n")
        lines = [line for line, row in enumerate(rows, 1) if row.strip(blank)]
        rows = [row for row in rows if row.strip(blank)] if len(lines) < len(rows) else rows
        widths = [row.count(delimiter) + 1 for row in rows]
    names = ", ".join(column.name for column in columns if column.required)
    if not lines:
        raise UserError(f"{path}, line 1: found nothing, expected a table with the columns {names}.")
    header = [cell.strip() for cell in (cells[0] if '"' in content else rows[0].split(delimiter))]
    position = _positions(path, lines[0], header, columns)
    wrong = pd.Series({line: str(width) for line, width in zip(lines, widths, strict=True) if width != len(header)}, dtype=str)
    mistakes = _Mistake.of(wrong, "{} cells", f"{len(header)}: {delimiter.join(header)[:200]}")
    right = [index for index, width in enumerate(widths) if width == len(header) and index]
    if not right and not mistakes:
        raise UserError(f"{path}, line {lines[0] + 1}: found no rows below the header, expected one for each image.")
    if '"' in content:
        frame = pd.DataFrame([cells[index] for index in right], columns=range(len(header)), dtype=str)
    else:
        body = io.StringIO("\n".join(rows[index] for index in right) or delimiter * (len(header) - 1) + "\n")
        frame = pd.read_csv(
            body,
            sep=delimiter,
            header=None,
            names=range(len(header)),
            usecols=sorted(position.values()),
            dtype=str,
            na_filter=False,
            quoting=csv.QUOTE_NONE,
        )
        frame = frame.iloc[: len(right)]
    frame.index = pd.Index([lines[index] for index in right], name="line")
    found = {column.name: frame[position[column.name]].str.strip() if column.name in position else "" for column in columns}
    return pd.DataFrame(found, index=frame.index, dtype=str), mistakes


def _positions(path: Path, line: int, header: Sequence[str], columns: Sequence[Column]) -> dict[str, int]:
    lower = [name.lower() for name in header]
    missing = [column.name for column in columns if column.required and column.name.lower() not in lower]
    twice = [column.name for column in columns if lower.count(column.name.lower()) > 1]
    if missing or twice:
        kinds = (("no column", missing), ("more than one column", twice))
        what = " and ".join(f"{words} {', '.join(names)}" for words, names in kinds if names)
        raise UserError(
            f"{path}, line {line}: found {what} in the header {','.join(header)[:400]!r}, "
            f"expected the columns {', '.join(column.name for column in columns if column.required)}."
        )
    return {column.name: lower.index(column.name.lower()) for column in columns if column.name.lower() in lower}


def _decode(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UserError(f"{path}, line 1: found UTF-16, expected UTF-8; save the table as 'CSV UTF-8'.")
    data = data.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    try:
        content = data.decode("utf-8")
    except UnicodeDecodeError:
        _raise(path, _undecodable(data.split(b"\n")))
        raise
    if "\0" in content:
        line = content.count("\n", 0, content.index("\0")) + 1
        raise UserError(
            f"{path}, line {line}: found a zero byte, expected a table in UTF-8 text; the file is damaged or no table."
        )
    return content


def _undecodable(lines: Sequence[bytes]) -> list[_Mistake]:
    mistakes = []
    for number_of_line, line in enumerate(lines, 1):
        try:
            line.decode("utf-8")
        except UnicodeDecodeError as error:
            shown = line[max(error.start - 20, 0) : error.end + 20].decode("latin-1")
            mistakes.append(
                _Mistake(
                    number_of_line,
                    f"found the byte 0x{line[error.start]:02x} in {shown!r}, expected UTF-8; save the table as 'CSV UTF-8'",
                )
            )
    return mistakes


def _quoted_rows(path: Path, content: str, delimiter: str) -> tuple[list[int], list[list[str]]]:
    """Rows of a table with quotation marks, and the lines they begin on (a quoted cell may go over several)."""
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter, strict=True)
    lines, rows, begins = [], [], 1
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                lines.append(begins)
                rows.append(row)
            begins = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path}, line {begins}: found {error}, expected cells whose quotation marks are closed.") from error
    return lines, rows


def without_repeats(frame: pd.DataFrame, key: str, path: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Leaves one row for each image id, and none where its rows have different labels.

    Returns:
        The rows, and what was left out as a frame of excluded rows.
    """
    repeated = frame[frame.duplicated(key, keep=False)]
    if repeated.empty:
        return frame, excluded_rows([], "")
    left_out = []
    for image_id, rows in repeated.groupby(key, sort=True):
        if len(set(rows["label"])) > 1:
            told = ", ".join(f"{label} (line {line})" for line, label in rows["label"].items())
            left_out.append((image_id, "", f"duplicate id with different labels: {told}"))
        else:
            first, *others = rows.index
            left_out += [
                (image_id, rows["label"][first], f"duplicate id: line {line} repeats line {first}, which is used")
                for line in others
            ]
    conflicts = {image_id for image_id, label, _ in left_out if not label}
    kept = frame[~frame.duplicated(key) & ~frame[key].isin(conflicts)]
    rows = pd.DataFrame(left_out, columns=["image_id", "label", "reason"], dtype=str)
    return kept, excluded_rows(rows["image_id"], rows["reason"], file=str(path), label=rows["label"])


def one_row_each(frame: pd.DataFrame, key: str, path: Path) -> pd.DataFrame:
    """The frame indexed by `key`; a row that repeats another is dropped.

    Raises:
        UserError: with the lines of one key whose other cells differ.
    """
    distinct = frame.drop_duplicates()
    first: dict[str, object] = {}
    wrong = distinct[distinct.duplicated(key)]
    for line, cell in distinct.loc[distinct[key].isin(wrong[key].head(PRINTED)), key].items():
        first.setdefault(cell, line)
    mistakes = [
        _Mistake(int(str(line)), f"found other cells for {cell} than in line {first[cell]}, expected one row for each {key}")
        for line, cell in wrong[key].head(PRINTED).items()
    ]
    _raise(path, mistakes + ([_Mistake(0, "", len(wrong) - PRINTED)] if len(wrong) > PRINTED else []))
    return distinct.set_index(key)


def excluded_rows(
    ids: Iterable[str],
    reason: str | Iterable[str],
    file: str | Iterable[str] = "",
    split: str = "",
    label: str | Iterable[str] = "",
) -> pd.DataFrame:
    """Rows for `Records.excluded`."""

    def cells(values: str | Iterable[str]) -> str | pd.Series:
        if isinstance(values, pd.Series):
            return values.reset_index(drop=True)
        return values if isinstance(values, str) else pd.Series(list(values), dtype=str)

    columns = {"image_id": cells(ids), "file": cells(file), "reason": cells(reason), "split": split, "label": cells(label)}
    return pd.DataFrame(columns, index=range(len(columns["image_id"])), dtype=str)


def add_files(
    frame: pd.DataFrame, table: Path, images: Files, masks: Files | None = None, split: str = "", told: Iterable[str] = ()
) -> tuple[pd.DataFrame, list[pd.DataFrame]]:
    """Adds the columns `image` and `mask` (of absolute paths, `mask` empty where there is none) and `split`.

    Args:
        frame: columns `image_id`, `label` and more.
        table: the file the frame comes from.
        told: ids that the table names, but that were left out already.

    Returns:
        The rows that have an image, and what was left out.
    """
    paths = frame["image_id"].map({image_id: str(path) for image_id, path in images.paths.items()})
    found = paths.notna()
    absent = frame[~found]
    unnamed = set(images.paths).difference(frame["image_id"].tolist(), told)
    stray = {image_id: str(images.paths[image_id]) for image_id in sorted(unnamed)}
    excluded = [
        excluded_rows(absent["image_id"], "a row without an image", str(table), split, absent["label"]),
        excluded_rows(stray, f"an image without a row in {table.name}", stray.values(), split),
    ]
    for files in (images, masks):
        if files is not None and files.excluded:
            excluded.append(
                excluded_rows(
                    [row["image_id"] for row in files.excluded],
                    [row["reason"] for row in files.excluded],
                    [row["file"] for row in files.excluded],
                    split,
                )
            )
    rows = frame[found].assign(image=paths[found], split=split)
    by_id = {image_id: str(path) for image_id, path in masks.paths.items()} if masks else {}
    return rows.assign(mask=rows["image_id"].map(by_id).fillna("") if by_id else ""), excluded


def to_records(
    name: str, rows: pd.DataFrame, classes: Sequence[str], excluded: Sequence[pd.DataFrame], notes: Sequence[str]
) -> Records:
    """Puts rows and columns in the order of `Records`; a blank `group_id` becomes the image's own id, less `_downsampled`."""
    own = rows["image_id"].map(bare_id)
    groups = rows["group_id"].where(rows["group_id"] != "", own) if "group_id" in rows else own
    table = rows.assign(group_id=groups, dataset=name)
    table = table[[*COLUMNS, *(column for column in table if column not in COLUMNS)]].astype(str)
    table = table.sort_values("image_id", kind="stable", ignore_index=True)
    left_out = pd.concat([excluded_rows([], ""), *excluded], ignore_index=True)[list(EXCLUDED_COLUMNS)]
    left_out = left_out.sort_values(["image_id", "file"], kind="stable", ignore_index=True)
    return Records(name, table, tuple(classes), left_out, tuple(notes))
