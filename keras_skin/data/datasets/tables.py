"""CSV tables, read by the names of their columns.

All work is done a whole column at a time, so a table of a million rows takes seconds.
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from keras_skin.data.datasets.records import ExclusionKind, excluded_rows
from keras_skin.registry import UserError, shorten

_DELIMITERS = (",", "\t", ";")
_ID = re.compile(r"(?!\.)(?!.*\.\.)[^/\\:]+")
_INVISIBLE = ("Cc", "Cf", "Zs", "Zl", "Zp")
_SELECTORS = frozenset(map(chr, (0x34F, 0x115F, 0x1160, 0x3164, *range(0xFE00, 0xFE10))))  # joiners, fillers, variants: no width
_FLAGS = {"0": False, "0.0": False, "1": True, "1.0": True}


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: its heading, in any case.
        expected: what its cells hold, for messages.
        accepts: whether a cell is valid; called once for each different text. `None` accepts all.
        required: whether a table without the column is an error; otherwise the column is filled with "".
    """

    name: str
    expected: str = "text"
    accepts: Callable[[str], object] | None = None
    required: bool = True


def text(name: str, required: bool = True) -> Column:
    """A column of any text."""
    return Column(name, required=required)


def image_ids(name: str) -> Column:
    """A column of image ids. Ids become paths, so none may lead out of its folder."""
    return Column(name, "an image id without '..' or a path separator", is_image_id)


def is_image_id(image_id: str) -> bool:
    """Whether an id can be the name of a file in a folder."""
    return _ID.fullmatch(image_id) is not None


def number(name: str, low: float, high: float, required: bool = True) -> Column:
    """A column of numbers from `low` to `high`; empty cells are unknown values."""

    def accepts(cell: str) -> bool:
        try:
            return cell == "" or low <= float(cell) <= high
        except ValueError:
            return False

    return Column(name, f"a number from {low:g} to {high:g}, or nothing", accepts, required)


def one_of(name: str, texts: Sequence[str], required: bool = True) -> Column:
    """A column of certain words."""
    expected = f"one of {', '.join(word or 'nothing' for word in texts)}"
    return Column(name, expected, frozenset(texts).__contains__, required)


def read_table(
    path: Path, columns: Sequence[Column], one_hot: Sequence[str] = (), otherwise: str = "", headings: Sequence[str] = ()
) -> pd.DataFrame:
    """Reads columns of a table by their headings, which may be in any order and any case. Other columns are ignored.

    Args:
        path: a table in UTF-8, with or without byte order mark, separated by commas, tabs or semicolons, with any line ends.
            Empty cells beyond the last heading are ignored.
        columns: the columns to read.
        one_hot: names of columns of 0.0 and 1.0. The name of the one that is 1.0 becomes the row's `label`.
        otherwise: the label of rows in which none is 1.0; by default such rows are invalid.
        headings: for a table that is published without headings and holds exactly `columns`, in that order: what stands in the
            first cell of copies that have a header.

    Returns:
        Stripped texts by line number; "" for an empty cell.

    Raises:
        UserError: with every mistake: file, line, what was found, what was expected.
    """
    flags = [Column(name, "0.0 or 1.0", _FLAGS.__contains__) for name in one_hot]
    frame, mistakes = _read_rows(path, [*columns, *flags], headings)
    for column in (*columns, *flags):
        if column.accepts is not None:
            invalid = [cell for cell in frame[column.name].unique().tolist() if not column.accepts(cell)]
            cells = frame.loc[frame[column.name].isin(invalid), column.name]
            mistakes += _mistakes(cells, f"{column.name} {{!r}}", column.expected)
    if one_hot:
        ones = frame[list(one_hot)].isin([cell for cell, value in _FLAGS.items() if value])
        count = ones.sum(axis=1)
        wrong = count[(count > 1) | ((count == 0) & (not otherwise))]
        expected = f"{'at most ' if otherwise else ''}one of {', '.join(one_hot)}"
        mistakes += _mistakes(wrong, "{} columns that are 1.0", expected)
        label = ones.idxmax(axis=1).where(count > 0, otherwise).astype(str)
        frame = frame.assign(label=label).drop(columns=list(one_hot))
    _raise(path, mistakes)
    return frame


def read_header(path: Path) -> list[str]:
    """Returns the stripped headings of a table; empty for an empty file.

    Raises:
        UserError: if the file cannot be read as text.
    """
    content = _decode(path)
    rows = csv.reader(io.StringIO(content, newline=""), delimiter=_delimiter(content))
    try:
        return next(([cell.strip() for cell in cells] for cells in rows if "".join(cells).strip()), [])
    except csv.Error as error:
        raise UserError(f"{path}, line {rows.line_num}: found {error}, expected a table of comma-separated cells.") from error


def _delimiter(content: str) -> str:
    """The delimiter that is the most frequent in the first line with text."""
    first_line = next((line for line in content.split("\n", 50) if line.strip()), "")
    return max(_DELIMITERS, key=first_line.count)


def refuse_lookalikes(labels: pd.Series, path: Path, classes: Sequence[str] = ()) -> None:
    """Refuses labels that differ only in case, spaces, invisible characters or the form of their letters.

    Args:
        labels: a label for each row, by line number; "" for none.
        path: the table, for the message.
        classes: the names of the classes, if they are chosen.

    Raises:
        UserError: with each spelling, the number of its rows and the line of the first.
    """
    counts = labels[labels != ""].value_counts()
    first = labels.drop_duplicates()
    line_of = dict(zip(first.tolist(), first.index, strict=True))
    spellings: dict[str, list[str]] = {}
    for label in sorted({*counts.index, *classes}):
        spellings.setdefault(_visible(label), []).append(label)
    lines = []
    for alike in spellings.values():
        looks_same = len({unicodedata.normalize("NFC", label) for label in alike}) < len(alike)
        shown = [ascii(label) if looks_same else repr(label) for label in alike]
        rows = [f"in {counts[label]} rows, first in line {line_of[label]}" if label in counts else "in no row" for label in alike]
        if len(alike) > 1:
            lines.append("  " + " and ".join(f"{name} ({places})" for name, places in zip(shown, rows, strict=True)))
    if lines:
        raise UserError(
            "\n".join(
                [
                    f"{path}: labels differ only in case, spaces or characters that nobody sees, and would be different classes:",
                    *shorten(lines),
                    "Write each class in one way.",
                ]
            )
        )


def _visible(label: str) -> str:
    """The label in lower case, without spaces and invisible characters, its letters in one form."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", label).casefold())
    return "".join(
        char for char in folded if not (char.isspace() or unicodedata.category(char) in _INVISIBLE or char in _SELECTORS)
    )


def _mistakes(cells: pd.Series, wrong: str, expected: str) -> list[tuple[int, str]]:
    """(line number, sentence) for each cell of a series by line number."""
    return [(int(str(line)), f"found {wrong.format(cell)}, expected {expected}") for line, cell in cells.items()]


def _raise(path: Path, mistakes: Iterable[tuple[int, str]]) -> None:
    lines = [f"  line {line}: {sentence}" for line, sentence in sorted(mistakes, key=lambda mistake: mistake[0])]
    if lines:
        raise UserError("\n".join([f"{path} cannot be read:", *shorten(lines)]))


def _read_rows(path: Path, columns: Sequence[Column], headings: Sequence[str]) -> tuple[pd.DataFrame, list[tuple[int, str]]]:
    """The columns of a table, and the rows with too many or too few cells. A quoted cell may go over several lines."""
    required = ", ".join(column.name for column in columns if column.required)
    content = _decode(path)
    delimiter = _delimiter(content)
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter, strict=True)
    header, positions = [column.name for column in columns], {column.name: index for index, column in enumerate(columns)}
    mistakes: list[tuple[int, str]] = []
    lines: list[int] = []
    texts: list[str] = []  # of all rows one after another: a list for each row would keep the garbage collector busy
    line, is_first, last = 1, True, 0
    try:
        for cells in reader:
            start, line = line, reader.line_num + 1
            if not "".join(cells).strip():
                continue
            last = start
            if is_first:
                is_first = False
                if not headings:
                    header = [cell.strip() for cell in cells]
                    positions = _positions(path, start, header, columns)
                    continue
                if cells[0].strip().lower() in headings:
                    continue
            if len(cells) > len(header) and not "".join(cells[len(header) :]).strip():
                del cells[len(header) :]  # spreadsheets end lines with commas
            if len(cells) == len(header):
                lines.append(start)
                texts += [cells[index] for index in positions.values()]
            else:
                mistakes.append((start, f"found {len(cells)} cells, expected {len(header)}: {delimiter.join(header)[:200]}"))
    except csv.Error as error:
        raise UserError(f"{path}, line {line}: found {error}, expected cells whose quotation marks are closed.") from error
    if is_first:
        raise UserError(f"{path}, line 1: the file is empty, expected a table with the columns {required}.")
    if not lines and not mistakes:
        raise UserError(f"{path}, line {last + 1}: found no rows below the header, expected one for each image.")
    cells_of = {name: pd.Series(texts[place :: len(positions)], dtype=str).str.strip() for place, name in enumerate(positions)}
    frame = pd.DataFrame({column.name: cells_of.get(column.name, "") for column in columns}, dtype=str)
    return frame.set_index(pd.Index(lines, name="line")), mistakes


def _positions(path: Path, line: int, header: Sequence[str], columns: Sequence[Column]) -> dict[str, int]:
    lower = [name.lower() for name in header]
    missing = [column.name for column in columns if column.required and column.name.lower() not in lower]
    repeated = [column.name for column in columns if lower.count(column.name.lower()) > 1]
    if missing or repeated:
        problems = (("no column", missing), ("more than one column", repeated))
        problem = " and ".join(f"{words} {', '.join(names)}" for words, names in problems if names)
        raise UserError(
            f"{path}, line {line}: found {problem} in the header {','.join(header)[:400]!r}, "
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


def _undecodable(lines: Sequence[bytes]) -> list[tuple[int, str]]:
    mistakes = []
    for number_of_line, line in enumerate(lines, 1):
        try:
            line.decode("utf-8")
        except UnicodeDecodeError as error:
            excerpt = line[max(error.start - 20, 0) : error.end + 20].decode("latin-1")
            byte = f"the byte 0x{line[error.start]:02x} in {excerpt!r}"
            mistakes.append((number_of_line, f"found {byte}, expected UTF-8; save the table as 'CSV UTF-8'"))
    return mistakes


def without_repeats(frame: pd.DataFrame, path: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Keeps one row for each `image_id`, and none where its rows have different labels.

    Returns:
        The rows, and the others as a table of excluded rows.
    """
    repeated = frame[frame.duplicated("image_id", keep=False)]
    excluded = []
    for image_id, rows in repeated.groupby("image_id", sort=True):
        labels, (first, *others) = rows["label"], rows.index
        if len(set(labels)) > 1:
            listed = ", ".join(f"{label} (line {line})" for line, label in labels.items())
            excluded.append((image_id, ExclusionKind.LABEL_CONFLICT, f"duplicate id with different labels: {listed}", ""))
            continue
        for line in others:
            reason = f"duplicate id: line {line} repeats line {first}, which is used"
            excluded.append((image_id, ExclusionKind.DUPLICATE_ID, reason, labels[first]))
    table = pd.DataFrame(excluded, columns=["image_id", "kind", "reason", "label"], dtype=str)
    conflicts = table.loc[table["kind"] == ExclusionKind.LABEL_CONFLICT, "image_id"]
    unique = frame[~frame.duplicated("image_id") & ~frame["image_id"].isin(conflicts)]
    return unique, excluded_rows(table, table["kind"], table["reason"], str(path))


def one_row_each(frame: pd.DataFrame, key: str, path: Path) -> pd.DataFrame:
    """Returns the frame indexed by `key`, without rows that repeat another.

    Raises:
        UserError: if the other cells of a repeated key differ; with the lines.
    """
    distinct = frame.drop_duplicates()
    first = distinct.drop_duplicates(key)
    line_of = dict(zip(first[key], first.index, strict=True))
    expected = f"expected one row for each {key}"
    _raise(
        path,
        [
            (int(str(line)), f"found other cells for {cell} than in line {line_of[cell]}, {expected}")
            for line, cell in distinct.loc[distinct.duplicated(key), key].items()
        ],
    )
    return first.set_index(key)


def join_table(rows: pd.DataFrame, path: Path, columns: Sequence[Column]) -> pd.DataFrame:
    """Adds columns of another table by image id; images without a row there have missing values.

    Raises:
        UserError: if the table is invalid, or the rows of one id differ.
    """
    table = read_table(path, [image_ids("image"), *columns])
    return rows.join(one_row_each(table, "image", path), on="image_id")
